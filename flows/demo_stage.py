"""The demo's stage: shows each command as a user would type it, runs it, shows its output."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import lake
from contracts.errors import InvariantError, LakeOriginError
from contracts.tables import RUNS, TABLES
from contracts.time import SystemClock
from flows.cli.app import build_app
from lake.root import read_lake
from lake.sources import Tables
from lake.store import Store

if TYPE_CHECKING:
    from lake import Lake

_POLL_SECONDS = 0.02
_CHILD_SECONDS = 90.0


class Stage:
    """A lake of its own, the commands that are run on it, and what they claim.

    Args:
        root: Where the lake is made.
        origin: What an earlier demo lake says of itself; anything else is not replaced.

    Raises:
        LakeOriginError: Something that no demo made lies at the root.
    """

    def __init__(self, root: str, *, origin: str) -> None:
        self.root = root
        self._path = Path(root).expanduser()
        self._clear(origin)

    def _clear(self, origin: str) -> None:
        if not self._path.exists() or (self._path.is_dir() and not any(self._path.iterdir())):
            return
        store = Store(self.root)
        made_here = self._path.is_dir() and store.get("lake.json") is not None
        if not made_here or read_lake(store).origin != origin:
            raise LakeOriginError(
                f"{self._path} holds something that no demo made, and it stays as it is",
                remedy="Name another folder with --root",
            )
        shutil.rmtree(self._path)

    def heading(self, title: str, *lines: str) -> None:
        """Begin a step."""
        self.say("", f"== {title}", *lines)

    def say(self, *lines: str) -> None:
        """Print lines."""
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def lake(self, *words: str) -> str:
        """Run ``lake WORDS`` in this process, show it, and return what it printed.

        Raises:
            InvariantError: It ended with an exit code other than 0.
        """
        self._show(words)
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with redirect_stderr(sys.stdout), redirect_stdout(printed):
            code = build_app()(
                [*words, "--root", self.root], exit_on_error=False, print_error=False
            )
        text = printed.buffer.getvalue().decode()
        sys.stdout.write(text)
        sys.stdout.flush()
        check(code == 0, f"`lake {words[0]}` ended with exit code {code}")
        return str(text)

    def killed(self, *words: str, rows: int, environment: dict[str, str]) -> int:
        """Run ``lake WORDS`` in a process of its own and kill it once ``rows`` bars are stored.

        Returns:
            How many bars were stored when it was dead.
        """
        settings = " ".join(f"{name}={value}" for name, value in environment.items())
        self._show(words, before=f"{settings} ", after=" &")
        # What the next command needs is loaded while the child works.
        loading = threading.Thread(target=import_module, args=("flows.venues.client",))
        loading.start()
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "flows.cli", *words, "--root", self.root],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | {"PYTHONPATH": _python_path()} | environment,
            )
            try:
                self._wait_for(child, rows)
            finally:
                child.kill()
                child.wait()
            said.seek(0)
            self.say(said.read().decode().rstrip())
        loading.join()
        check(child.returncode == -signal.SIGKILL, "the child was not killed")
        stored = self.bars()
        self.say(
            f"$ kill -9 {child.pid}", f"Killed with SIGKILL; {stored:,} bars are stored so far."
        )
        return stored

    def _wait_for(self, child: subprocess.Popen[bytes], rows: int) -> None:
        deadline = time.monotonic() + _CHILD_SECONDS
        while self.bars() < rows:
            check(child.poll() is None, "the backfill ended before it could be killed")
            check(time.monotonic() < deadline, "the backfill stored too little in time")
            time.sleep(_POLL_SECONDS)

    def open(self, snapshot: str | None = None) -> Lake:
        """Open the demo's lake with the SDK."""
        return lake.open(self.root, snapshot=snapshot)

    def bars(self) -> int:
        """Return how many bars are stored."""
        if not (self._path / "lake.json").is_file():
            return 0
        return int(self.open().scan("silver.bars").select(pl.len()).collect().item())

    def versions(self) -> dict[str, int]:
        """Return the version of each table that a second run must not touch."""
        views = Tables(Store(self.root), SystemClock()).views(list(TABLES))
        return {name: view.version for name, view in views.items() if name != RUNS.name}

    def _show(self, words: tuple[str, ...], *, before: str = "", after: str = "") -> None:
        typed = shlex.join(("lake", *words, "--root", self.root))
        self.say("", f"$ {before}{typed}{after}")


def check(holds: bool, claim: str) -> None:
    """Raise unless a claim of the demo holds.

    Raises:
        InvariantError: It does not.
    """
    if not holds:
        raise InvariantError(f"The demo's claim does not hold: {claim}", remedy="Report it")


def _python_path() -> str:
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return os.pathsep.join(filter(None, paths))
