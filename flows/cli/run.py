"""``lake run``: run a script that reads what a lock pins, and nothing else.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import LockDriftError, RequestError
from flows.cli.lock import LOCK, shortened
from flows.cli.options import ELSEWHERE, Elsewhere
from flows.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WITH_VALUE = ("--lock", "--root")
_SIGNALLED = 128


def run(
    script: str,
    /,
    *arguments: str,
    locked: bool = False,
    lock: str | None = None,
    verify: bool = False,
    allow_engine_drift: bool = False,
    elsewhere: Elsewhere = ELSEWHERE,
) -> int:
    """Run a Python script whose `lake.open()` reads what its lock pins, and nothing else.

    What stands after the script goes to it. Its exit code is passed on.

    Try: ``lake run --locked strategy.py --fast 12``

    Args:
        script: A Python file.
        arguments: What the script is given.
        locked: Bind it to its lock; without, it runs as it would by itself.
        lock: The lock; `lake.lock` beside the script when left out.
        verify: With --locked, also ask the locked queries again, and compare their hashes.
        allow_engine_drift: With --locked, accept other versions of the packages.
    """
    file = Path(script).expanduser()
    if not file.is_file():
        raise RequestError(f"There is no script at {file}", remedy="Name a Python file")
    if locked:
        path = Path(lock).expanduser() if lock else file.parent / LOCK
        bound = _bound(path, elsewhere, verify=verify, allow=allow_engine_drift)
    elif lock or verify or allow_engine_drift:
        raise RequestError(
            "--lock, --verify and --allow-engine-drift are for a run that is bound to a lock",
            remedy="Add --locked",
        )
    else:
        bound = {} if elsewhere.root is None else {"LAKE_ROOT": elsewhere.root}
    return _passed_on([sys.executable, str(file), *arguments], bound)


def split_script(asked: list[str]) -> list[str]:
    """Mark where the words of ``lake run`` end, so that what follows goes to the script.

    Example:
        >>> split_script(["run", "--locked", "--lock", "a.lock", "s.py", "--verify"])
        ['run', '--locked', '--lock', 'a.lock', '--', 's.py', '--verify']
    """
    if asked[:1] != ["run"]:
        return asked
    place = 1
    while place < len(asked) and asked[place].startswith("-"):
        if asked[place] == "--":
            return asked
        place += 2 if asked[place] in _WITH_VALUE else 1
    return [*asked[:place], "--", *asked[place:]] if place < len(asked) else asked


def _bound(path: Path, elsewhere: Elsewhere, *, verify: bool, allow: bool) -> dict[str, str]:
    """Check a lock, say what it pins, and return what binds a process to it."""
    from contracts.time import SystemClock
    from lake.drift import check_answers, check_files, locked_manifest
    from lake.locked import ENGINE_VARIABLE, LOCK_VARIABLE, ROOT_VARIABLE, same_place
    from lake.lockfile import read_lock
    from lake.locks import is_registered
    from lake.root import read_lake
    from lake.store import Store

    lock = read_lock(path)
    store = Store(elsewhere.root or lock.where)
    read_lake(store)
    if not same_place(store.uri, lock.where):
        say(f"reading {store.uri}, as --root or LAKE_ROOT says; the lock names {lock.where}")
    try:
        manifest = locked_manifest(lock, store, clock=SystemClock(), allow_engine_drift=allow)
        check_files(lock, store, manifest, level="full")
        if verify:
            check_answers(lock, store, manifest)
    except LockDriftError as error:
        for change in error.changes:
            say(f"changed: {change}")
        raise shortened(error, path) from None
    say(f"locked: snapshot {lock.snapshot_id} of {store.uri}, by {path} ({lock.lock_id[:12]})")
    if not is_registered(store, lock.lock_id):
        say("the lock is not registered in this lake: its snapshot may be given up at any time")
    return {
        LOCK_VARIABLE: str(path.absolute()),
        ROOT_VARIABLE: store.uri,
        ENGINE_VARIABLE: "1" if allow else "0",
    }


def _passed_on(command: "Sequence[str]", bound: "Mapping[str, str]") -> int:
    """Run a process to its end and return its exit code, as a shell would tell it.

    An interrupt from the keyboard reaches it anyway, so it alone decides what that means; a
    request to end is handed on.
    """
    with subprocess.Popen(command, env=os.environ | bound) as child:  # noqa: S603 - as asked
        handlers = {
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
        }
        try:
            code = child.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return code if code >= 0 else _SIGNALLED - code
