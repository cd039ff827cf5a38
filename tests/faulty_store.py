"""A store that fails on a plan made from a seed, below everything that writes a lake.

=================  =========================================================================
kind               what happens
=================  =========================================================================
before             the operation fails and has no effect
after              the operation has its effect and fails all the same
timeout            the same, told as a timeout
conflict           412: a create is refused though nobody was first, or after it was done; a
                   commit is told to have lost a race
torn               half of an object is left where it is staged, and the write fails; a file
                   that is to be deleted unless it is newer is left aside
slow               the operation takes its time, and is done
stale              a listing lacks what was written last
crash              the process is gone: nothing after it happens, no clean-up either
=================  =========================================================================

Operations are those of ``lake.store.Store`` and the two of delta-rs that write. One that is
made of others is struck in those, and so once: ``Store.sizes`` in ``Store.listing``. A plan is
reproduced from its seed; ``FaultPlan.told`` lists what struck where.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from contracts.errors import StoreUnavailableError
from lake.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from lake.store import Listed

KINDS = ("before", "after", "timeout", "conflict", "torn", "slow", "stale")
WRITES = ("put", "create", "delete", "delete_unless_newer")
READS = ("get", "size", "tail", "listing", "sizes_of", "leftovers")
PATHED = ("get", "size", "tail", "listing")
SLOW_SECONDS = 0.002
# As the store names what it stages or moves aside, so that a vacuum knows it for a leftover.
ASIDE = "#0badcafe"
RECENT = 4


class Crash(BaseException):
    """The process is gone; no handler of errors sees it."""


@dataclass
class FaultPlan:
    """Decides at each operation what goes wrong.

    Attributes:
        seed: Reproduces the plan.
        rate: Share of operations that fail.
        crash_at: Number of the writing operation before which the process dies; 0: never.
        kinds: What may go wrong.
        told: What struck: (number, operation, kind).
    """

    seed: int
    rate: float = 0.0
    crash_at: int = 0
    kinds: tuple[str, ...] = KINDS
    told: list[tuple[int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._count = self._writes = 0
        self._written: list[str] = []
        self.dead = False

    def draw(self, operation: str, *, writes: bool) -> str | None:
        """Return what happens to an operation, None for nothing.

        Raises:
            Crash: The process dies here, or is dead.
        """
        with self._lock:
            self._count += 1
            self._writes += writes
            if self.dead or (writes and self._writes == self.crash_at):
                self.dead = True
                self.told.append((self._count, operation, "crash"))
                raise Crash(operation)
            if self._random.random() >= self.rate:
                return None
            kind = self._random.choice(self.kinds)
            self.told.append((self._count, operation, kind))
            return kind

    def wrote(self, path: str) -> None:
        """Remember what a stale listing may lack."""
        with self._lock:
            self._written = [*self._written, path][-RECENT:]

    def unseen(self, paths: Sequence[str], sizes: list[int | None]) -> list[int | None]:
        """Return the sizes of files, None for those that were written last."""
        return [
            None if path in self._written else size for path, size in zip(paths, sizes, strict=True)
        ]

    def stale(self, found: dict[str, Listed]) -> dict[str, Listed]:
        """Return a listing without what was written last."""
        return {path: told for path, told in found.items() if path not in self._written}


@contextmanager
def faults(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Let all stores and tables of this process fail on a plan."""
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(Store, name, _write(plan, name, getattr(Store, name)))
        for name in READS:
            patch.setattr(Store, name, _read(plan, name, getattr(Store, name)))
        for name in ("create", "create_write_transaction"):
            patch.setattr(DeltaTable, name, _delta(plan, name, getattr(DeltaTable, name)))
        yield plan


def _write(plan: FaultPlan, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(store: Store, path: str, *arguments: Any) -> Any:
        kind = plan.draw(f"{name} {path}", writes=True)
        if kind == "torn" and store.is_local and name in TORN:
            TORN[name](store.path / path, *arguments)
        if kind in ("before", "torn"):
            raise StoreUnavailableError(f"Cannot {name} {path}: injected", remedy="Run again")
        if kind == "conflict" and name == "create":
            # Even so a store answers: its own first try was stored, and the second refused.
            original(store, path, *arguments)
            return False
        if kind == "slow":
            time.sleep(SLOW_SECONDS)
        done = original(store, path, *arguments)
        plan.wrote(path)
        if kind in ("after", "timeout"):
            raise StoreUnavailableError(f"Cannot {name} {path}: injected {kind}", remedy="Again")
        return done

    return call


def _half_put(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}{ASIDE}").write_bytes(bytes(data)[: len(data) // 2])


def _half_deleted(target: Path, _modified: datetime) -> None:
    with suppress(FileNotFoundError):
        target.rename(target.with_name(f"{target.name}{ASIDE}"))


TORN: dict[str, Callable[..., None]] = {"put": _half_put, "delete_unless_newer": _half_deleted}


def _read(plan: FaultPlan, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(store: Store, *arguments: Any, **options: Any) -> Any:
        if name == "sizes_of" and not store.is_local:
            return original(store, *arguments, **options)  # A listing, which is struck itself.
        operation = " ".join([name, *map(str, arguments[:1] if name in PATHED else ())])
        kind = plan.draw(operation, writes=False)
        if kind in ("before", "after", "timeout"):
            raise StoreUnavailableError(f"Cannot {operation}: injected {kind}", remedy="Again")
        if kind == "slow":
            time.sleep(SLOW_SECONDS)
        done = original(store, *arguments, **options)
        if kind == "stale" and name == "listing":
            return plan.stale(done)
        if kind == "stale" and name == "sizes_of":
            return plan.unseen(arguments[0], done)
        return done

    return call


def _delta(plan: FaultPlan, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        kind = plan.draw(f"delta {name}", writes=True)
        if kind in ("before", "torn"):
            raise OSError("injected: the connection was refused")
        if kind == "conflict" and name == "create_write_transaction":
            raise CommitFailedError("injected: a concurrent transaction was first")
        if kind == "slow":
            time.sleep(SLOW_SECONDS)
        done = original(*arguments, **options)
        if kind in ("after", "timeout"):
            raise OSError(f"injected {kind}: stored, and not acknowledged")
        return done

    return call
