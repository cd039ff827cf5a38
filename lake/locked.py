"""Open what a lake.lock names; in a run that is bound to a lock, nothing else.

``lake run --locked`` binds a run by two variables of the environment, which hold in the
processes that the script starts as well: ``LAKE_LOCK`` is the path of the lock,
``LAKE_ALLOW_ENGINE_DRIFT=1`` lets other versions of the packages read. ``LAKE_ROOT`` names a
copy of the lake where that is not at the root that the lock names. This keeps a script from
reading the wrong state by mistake; it is no sandbox.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import LockedRunError, RequestError
from lake.drift import answer_drift, locked_manifest
from lake.labels import resolve_snapshot
from lake.lockfile import answer_of, read_lock
from lake.reader import read_bars
from lake.root import read_lake
from lake.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from contracts.time import Clock
    from lake.lockfile import Lock
    from lake.manifest import Manifest
    from lake.sources import Source

LOCK_VARIABLE = "LAKE_LOCK"
ENGINE_VARIABLE = "LAKE_ALLOW_ENGINE_DRIFT"
ROOT_VARIABLE = "LAKE_ROOT"


@dataclass(frozen=True, slots=True)
class Asked:
    """What ``lake.open`` was asked for."""

    root: str | Path | None = None
    snapshot: str | None = None
    lock: str | Path | None = None
    storage_options: Mapping[str, str] | None = None
    allow_engine_drift: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A lock, and the snapshot that it names where it was found."""

    store: Store
    manifest: Manifest
    lock: Lock


def open_locked(asked: Asked, clock: Clock) -> Opened:
    """Open the snapshot of a lock: the one that is asked for, or that binds the run.

    Raises:
        RequestError: There is no lock there, or a snapshot was named beside it.
        LockedRunError: The run is bound to a lock, and something else was asked for.
        LockDriftError: What the lock pins and what is there differ.
        ChecksumError: The lock or the manifest is not what was written.
        LakeFormatError: The lock or the lake was written by a newer Tidemark.
        LakeNotFoundError: There is no lake at the root.
    """
    binding = os.environ.get(LOCK_VARIABLE)
    lock = read_lock(binding or asked.lock or "")
    root = lock.where
    allow = asked.allow_engine_drift
    if binding:
        root = os.environ.get(ROOT_VARIABLE) or root
        allow = os.environ.get(ENGINE_VARIABLE) == "1"
        _check_bound(asked, lock, root)
    elif asked.snapshot is not None:
        raise RequestError(
            "A lock names its snapshot itself", remedy="Pass lock= or snapshot=, not both"
        )
    store = Store(root if asked.root is None else asked.root, options=asked.storage_options)
    read_lake(store)
    manifest = locked_manifest(lock, store, clock=clock, allow_engine_drift=allow)
    return Opened(store, manifest, lock)


def locked_bars(
    source: Source, lock: Lock | None, name: str | None, *, verify: bool
) -> pl.LazyFrame:
    """Return the bars of a locked query, after comparing their hash when verifying.

    Raises:
        RequestError: There is no lock, or it has no such query.
        LockDriftError: The bars are not those that were locked.
    """
    if lock is None:
        raise RequestError("No lock was opened", remedy="Open the lake with lock='lake.lock'")
    locked = lock.query(name)
    if not verify:
        return read_bars(source, locked.query)
    rows, answer = answer_of(source, locked.query)
    if answer != locked.answer:
        raise answer_drift(lock, locked, answer, where=source.store.uri)
    return rows.lazy()


def refuse_when_locked(what: str) -> None:
    """Refuse in a run that is bound to a lock what would show or change another state.

    Raises:
        LockedRunError: The run is bound to a lock.
    """
    binding = os.environ.get(LOCK_VARIABLE)
    if binding:
        raise _refused(read_lock(binding), what)


def same_place(first: str | Path, second: str | Path) -> bool:
    """Tell whether two roots are one place."""
    return _place(first) == _place(second)


def _place(root: str | Path) -> str:
    store = Store(root)
    return os.path.realpath(store.uri) if store.is_local else store.uri


def _check_bound(asked: Asked, lock: Lock, root: str) -> None:
    """Refuse whatever is not the snapshot that binds the run."""
    if asked.lock is not None and read_lock(asked.lock).lock_id != lock.lock_id:
        raise _refused(lock, f"the lock {asked.lock}")
    elsewhere = asked.root is not None and not same_place(asked.root, root)
    if asked.snapshot is None:
        if elsewhere and asked.lock is None:
            raise _refused(lock, f"the newest state of {asked.root}")
    elif asked.snapshot != lock.snapshot_id:
        store = Store(root if asked.root is None else asked.root, options=asked.storage_options)
        if _full_id(store, asked.snapshot) != lock.snapshot_id:
            raise _refused(lock, f"snapshot {asked.snapshot} of {store.uri}")


def _full_id(store: Store, snapshot: str) -> str | None:
    try:
        return resolve_snapshot(store, snapshot).snapshot_id
    except RequestError:
        return None


def _refused(lock: Lock, asked: str) -> LockedRunError:
    return LockedRunError(
        f"This run is locked to snapshot {lock.snapshot_id} by {lock.path}, and {asked} "
        "was to be opened",
        remedy="Open the lake with lake.open() and nothing else, or run without --locked",
        snapshot_id=lock.snapshot_id,
        lock_id=lock.lock_id,
    )
