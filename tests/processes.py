"""Processes that tests run, forked from one that has imported everything.

A fresh Python takes a second to import a lake. The zygote, one process per session, imports
each test module once and uses nothing of it: the threads of Polars and delta-rs would not
survive a fork. Between it and each child stands a watcher, who notes how the child ended.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__)
# What a lake imports when it comes to it. A test module names more in a PRELOADED of its own.
PRELOADED = (
    "kernel_support",
    "numpy",
    "obstore.store",
    "pandera.polars",
    "polars._utils.parquet",
)
# Threads that begin with an import and that no child needs: jemalloc's, which know of forks,
# and the one that tidies up what Polars spilled.
IDLE = ("jemalloc_bg_thd", "polars-ooc-clea")
# A child whose test is gone ends by itself.
LONGEST_SECONDS = 120


class Child:
    """A process as its test sees it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def poll(self) -> int | None:
        """Return the exit code, minus the signal that ended the process; None while it runs."""
        ended = self.folder / "ended"
        return int(ended.read_text()) if ended.exists() else None

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code as soon as there is one."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"{self.name} runs for longer than {seconds} s"
            time.sleep(0.003)
        return code

    @property
    def printed(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def complaint(self) -> str:
        return (self.folder / "err").read_text()[-2_000:]


def child(module: Path, call: str, *arguments: object) -> Child:
    """Start ``call`` of a test module in a process of its own, with texts as arguments."""
    return _zygote().child(module, call, [str(argument) for argument in arguments])


def finished(process: Child) -> str:
    """Wait for a child that must end well; return what it printed."""
    assert process.wait() == 0, process.complaint
    return process.printed


def killed(process: Child) -> None:
    """Wait for a child that must die as by kill -9."""
    code = process.wait()
    assert code == -signal.SIGKILL, f"{process.name} ended with {code}: {process.complaint}"


@functools.cache
def _zygote() -> _Zygote:
    return _Zygote()


class _Zygote:
    """The process that forks, as the tests see it; it ends with them."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tidemark-processes-")
        self.numbers, self.lock = itertools.count(), threading.Lock()
        code = f"import sys; sys.path[:0] = [{str(HERE.parent)!r}]; import {HERE.stem} as z"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}; z.serve()"],
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        atexit.register(self.stop)

    def child(self, module: Path, call: str, arguments: list[str]) -> Child:
        with self.lock:
            folder = Path(self.folder.name, str(next(self.numbers)))
            folder.mkdir()
            asked = {
                "folders": [str(module.parents[number]) for number in range(3)],
                "module": module.stem,
                "call": call,
                "arguments": arguments,
                "environment": os.environ | {"POLARS_MAX_THREADS": "1"},
                "told": str(folder),
            }
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        return Child(folder, f"{module.stem}.{call}({', '.join(arguments)})")

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(10)
        self.folder.cleanup()


def serve() -> None:
    """Fork what each line of stdin asks for, until there are no more."""
    # Nobody waits for the watchers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.path[:0] = [each for each in asked["folders"] if each not in sys.path]
        # What goes wrong here goes wrong again in the child, which tells it.
        with contextlib.suppress(Exception):
            _preload(asked["module"])
        lost = _threads()
        if not os.fork():
            _watch(asked, lost)


@functools.cache
def _preload(module: str) -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    for name in getattr(importlib.import_module(module), "PRELOADED", ()):
        importlib.import_module(name)
    gc.freeze()


def _threads() -> list[str]:
    """Return the names of the threads that a child would lack, where the system tells."""
    named = [each.read_text().strip() for each in Path("/proc/self/task").glob("[0-9]*/comm")]
    return [name for name in named if name not in IDLE][1:]


def _watch(asked: dict[str, Any], lost: list[str]) -> None:
    told = Path(asked["told"])
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process = os.fork()
        if not process:
            _be(asked, told, lost)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        (told / "ending").write_text(str(code))
        (told / "ending").rename(told / "ended")
    finally:
        os._exit(0)


def _be(asked: dict[str, Any], told: Path, lost: list[str]) -> None:
    status = 1
    try:
        signal.alarm(LONGEST_SECONDS)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(told / name, os.O_WRONLY | os.O_CREAT), number)
        os.environ.clear()
        os.environ.update(asked["environment"])
        assert not lost, f"used before the fork, and their threads are gone: {lost}"
        module = importlib.import_module(asked["module"])
        getattr(module, asked["call"])(*asked["arguments"])
        status = 0
    except BaseException:  # noqa: BLE001 - a fork never returns into its parent's stack
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
