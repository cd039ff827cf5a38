"""``lake lock``: write the lock of a strategy, check it, release it.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from contracts.errors import InvariantError, LockDriftError, RequestError, TidemarkError
from flows.cli.options import DEFAULT_ROOT, ELSEWHERE, OUTPUT, Elsewhere, Many, Output
from flows.cli.say import say

if TYPE_CHECKING:
    from contracts.time import Clock
    from lake.lockfile import Lock
    from lake.reader import BarsQuery
    from lake.store import Store

LOCK = "lake.lock"
_LEAST_OF_LOCK_ID = 8


@Parameter(name="*")
@dataclass(frozen=True)
class Question:
    """The query that a lock pins."""

    bars: Annotated[list[str] | None, Many] = None
    "Instrument ids, or patterns such as 'BTC-USDT-SPOT.*', whose bars are pinned."

    timeframe: str | None = None
    "Length of the bars, for instance 1h."

    start: str | None = None
    "First open time, UTC."

    end: str | None = None
    "Where to stop, exclusive."

    columns: Annotated[list[str] | None, Many] = None
    "Columns of silver.bars; all when left out."

    known_at: str | None = None
    "Show what the lake knew at that time."

    available_at: str | None = None
    "Show only bars that a backtest may assume published by then."


QUESTION = Question()


def lock(
    *,
    snapshot: str | None = None,
    question: Question = QUESTION,
    lock: str = LOCK,
    note: str | None = None,
    force: bool = False,
    check: bool = False,
    verify: bool = False,
    allow_engine_drift: bool = False,
    release: bool = False,
    lock_id: str | None = None,
    output: Output = OUTPUT,
    elsewhere: Elsewhere = ELSEWHERE,
) -> int:
    """Pin what a strategy reads in a lake.lock beside it; check one, or release it.

    Try: ``lake lock --snapshot 2026-03-24-3f9ac2d1 --bars BTC-USDT-SPOT.BINANCE --timeframe 1h``

    Args:
        snapshot: The snapshot that the strategy reads.
        lock: The file that is written, checked or released.
        note: What the lake's register of locks says of it; its path when left out.
        force: Write over a lock that pins something else; that one is released.
        check: Compare the lock with the lake, and print what changed; exit code 3 if anything.
        verify: With --check, also hash every file of the tables that are used.
        allow_engine_drift: With --check, accept other versions of the packages.
        release: Say in the lake that the lock is no longer in use; the file stays.
        lock_id: With --release, a lock whose file is gone, or the beginning of its lock_id;
            `lake snapshot unpin` names it.
    """
    if check and release:
        raise RequestError("--check and --release exclude one another", remedy="Choose one")
    if lock_id is not None and not release:
        raise RequestError("--lock-id names a lock to release", remedy="Add --release")
    if (verify or allow_engine_drift) and not check:
        raise RequestError(
            "--verify and --allow-engine-drift say how to check", remedy="Add --check"
        )
    path = Path(lock).expanduser()
    if release:
        return _release(path, lock_id, elsewhere, output)
    if check:
        return _check(path, elsewhere, output, verify=verify, allow=allow_engine_drift)
    if snapshot is None:
        raise RequestError(
            "A lock pins a snapshot, and none is named",
            remedy="Make one with `lake snapshot create`, and name it with --snapshot",
        )
    made, store = _made(path, snapshot, question, elsewhere)
    _tell(_put(store, made, path, note=note, force=force), store, path, output)
    return 0


def _made(
    path: Path, snapshot: str, question: Question, elsewhere: Elsewhere
) -> "tuple[Lock, Store]":
    """Return the lock that is asked for, and the store of its lake."""
    from lake.lakehouse import open_lake
    from lake.lockfile import make_lock
    from lake.store import Store

    query = _query(question)
    root = elsewhere.root or DEFAULT_ROOT
    manifest = open_lake(root, snapshot=snapshot).manifest
    if manifest is None:
        raise InvariantError("a lake was opened at a snapshot and has none")
    store = Store(root)
    queries = {} if query is None else {"bars": query}
    seen = _seen_from(path, root)
    return make_lock(store, manifest, root=seen, queries=queries, clock=_clock()), store


def _query(question: Question) -> "BarsQuery | None":
    from lake.lakehouse import bars_query

    if not question.bars:
        if question != QUESTION:
            raise RequestError(
                "The query names no instrument", remedy="Name some with --bars, or ask nothing"
            )
        return None
    if question.timeframe is None:
        raise RequestError("The query names no timeframe", remedy="Add for instance --timeframe 1h")
    return bars_query(
        question.bars,
        timeframe=question.timeframe,
        start=question.start,
        end=question.end,
        columns=question.columns,
        known_at=question.known_at,
        available_at=question.available_at,
    )


def _seen_from(path: Path, root: str) -> str:
    """Return a relative root as it is seen from the lock's folder, so that both can move."""
    told = Path(root).expanduser()
    if "://" in root or told.is_absolute():
        return root
    return Path(os.path.relpath(told.absolute(), path.absolute().parent)).as_posix()


def _put(store: "Store", made: "Lock", path: Path, *, note: str | None, force: bool) -> "Lock":
    """Register a lock, then write it; return what stands there, be it an older one that says so.

    In this order, so that a lock that is written is always registered.
    """
    from lake.lockfile import write_lock
    from lake.locks import register, release

    old = _old(path, force=force)
    if old is not None and not force:
        differences = old.differences(made)
        if differences:
            raise RequestError(
                f"{path} pins something else, snapshot {old.snapshot_id}; there differ: "
                + ", ".join(differences),
                remedy="Write over it with --force, or name another file with --lock",
            )
        made = old
    pin = {"snapshot_id": made.snapshot_id, "lock_id": made.lock_id}
    register(store, _clock(), **pin, note=note or str(path))
    if made is old:
        return made
    try:
        write_lock(made, path)
    except TidemarkError:
        release(store, made.lock_id)
        raise
    if old is not None and old.lock_id != made.lock_id and release(store, old.lock_id):
        say(f"released: {old.lock_id}, which pinned {old.snapshot_id}")
    return made


def _old(path: Path, *, force: bool) -> "Lock | None":
    """Return the lock that stands at a path; one that cannot be read gives way to --force."""
    from lake.lockfile import read_lock

    if not path.exists():
        return None
    try:
        return read_lock(path)
    except TidemarkError as error:
        if not force:
            raise
        say(f"written over: {error.message}")
        return None


def _release(path: Path, lock_id: str | None, elsewhere: Elsewhere, output: Output) -> int:
    from flows.cli.output import emit_record
    from lake.lockfile import read_lock
    from lake.locks import release
    from lake.root import read_lake
    from lake.store import Store

    root = elsewhere.root or DEFAULT_ROOT
    if lock_id is None:
        lock = read_lock(path)
        root, lock_id = elsewhere.root or lock.where, lock.lock_id
    store = Store(root)
    read_lake(store)
    found = _registered(store, lock_id)
    release(store, found)
    emit_record({"released": found, "root": store.uri}, output)
    return 0


def _registered(store: "Store", lock_id: str) -> str:
    """Return the only registered lock that begins so."""
    from lake.locks import every_lock

    if len(lock_id) < _LEAST_OF_LOCK_ID:
        raise RequestError(
            f"{lock_id!r} is too short for a lock_id",
            remedy=f"Give {_LEAST_OF_LOCK_ID} of its digits at least",
        )
    found = [each.lock_id for each in every_lock(store) if each.lock_id.startswith(lock_id)]
    if not found:
        raise RequestError(
            f"The lake at {store.uri} knows no lock {lock_id}",
            remedy="It was released, or it is registered in another lake: name that with --root",
        )
    if len(found) > 1:
        raise RequestError(
            f"{len(found)} locks begin with {lock_id}", remedy="Give more of its digits"
        )
    return found[0]


def _check(path: Path, elsewhere: Elsewhere, output: Output, *, verify: bool, allow: bool) -> int:
    from lake.drift import check_answers, check_files, locked_manifest
    from lake.lockfile import read_lock
    from lake.root import read_lake
    from lake.store import Store

    lock = read_lock(path)
    store = Store(elsewhere.root or lock.where)
    read_lake(store)
    try:
        manifest = locked_manifest(lock, store, clock=_clock(), allow_engine_drift=allow)
        check_files(lock, store, manifest, level="full" if verify else "quick")
        check_answers(lock, store, manifest)
    except LockDriftError as error:
        _emit_changes(error, output)
        raise shortened(error, path) from None
    _tell(lock, store, path, output)
    return 0


def shortened(error: LockDriftError, path: Path) -> LockDriftError:
    """Return the error without the list of changes in its text, which was shown before."""
    count = len(error.changes)
    told = "1 fact differs" if count == 1 else f"{count} facts differ"
    return LockDriftError(f"{told} from what {path} pins", remedy=error.remedy, **error.context)


def _clock() -> "Clock":
    from contracts.time import SystemClock

    return SystemClock()


def _emit_changes(error: LockDriftError, output: Output) -> None:
    import polars as pl

    from flows.cli.output import emit

    names = ("kind", "what", "locked", "found")
    rows = [tuple(getattr(fact, name) for name in names) for fact in error.facts]
    emit(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row"), output)


def _tell(lock: "Lock", store: "Store", path: Path, output: Output) -> None:
    """Print what a lock pins."""
    from flows.cli.output import emit_record
    from lake.locks import holders

    held = any(each.lock_id == lock.lock_id for each in holders(store, lock.snapshot_id))
    if not held:
        say("not registered in this lake: nothing keeps the snapshot from being unpinned here")
    emit_record(
        {
            "lock": str(path),
            "lock_id": lock.lock_id,
            "snapshot_id": lock.snapshot_id,
            "root": store.uri,
            "registered": held,
            **{f"rows of {name}": told.answer.rows for name, told in lock.queries.items()},
        },
        output,
    )
