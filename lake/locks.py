"""Locks in use: a lake's register of the lake.lock files that name its snapshots.

A strategy that is locked to a snapshot says so here, so that nobody unpins the snapshot
under it. The lock file itself lies beside the strategy; this is what the lake knows of it,
``locks/<lock_id>.json``, where lock_id is the SHA-256 of the lock file's content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import ChecksumError, RequestError
from contracts.response import canonical_json
from contracts.time import iso, parse_time
from lake.manifest import load_manifest
from lake.pinlog import is_pinned
from lake.who import user_name

if TYPE_CHECKING:
    from datetime import datetime

    from contracts.time import Clock
    from lake.store import Store

FOLDER = "locks"
_LOCK_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock in use.

    Attributes:
        snapshot_id: The snapshot that it names.
        lock_id: SHA-256 of the lock file's content.
        held_by: Who registered it.
        created_at: When, storage clock.
        note: What its holder says of it, for instance the path of the strategy.
    """

    snapshot_id: str
    lock_id: str
    held_by: str
    created_at: datetime
    note: str | None = None

    def __str__(self) -> str:
        return f"{self.lock_id[:12]} of {self.held_by}" + (f" ({self.note})" if self.note else "")


def register(
    store: Store,
    clock: Clock,
    *,
    snapshot_id: str,
    lock_id: str,
    held_by: str | None = None,
    note: str | None = None,
) -> Lock:
    """Say that a lock names a snapshot; the same lock again changes nothing.

    Args:
        store: The lake's store.
        clock: Its storage time dates the lock.
        snapshot_id: The full id.
        lock_id: SHA-256 of the lock file's content, hexadecimal.
        held_by: Who holds it; the user of this process when None.
        note: Free text that tells people which lock this is.

    Raises:
        UnknownSnapshotError: No such snapshot.
        RequestError: The snapshot is unpinned, or ``lock_id`` is no SHA-256.
    """
    path = _path(lock_id)
    load_manifest(store, snapshot_id)
    lock = Lock(snapshot_id, lock_id, held_by or user_name(), clock.storage(), note)
    told = {
        "snapshot_id": snapshot_id,
        "lock_id": lock_id,
        "held_by": lock.held_by,
        "created_at": iso(lock.created_at),
        "note": note,
    }
    created = store.create(path, canonical_json(told).encode())
    # Asked after the lock stands: an unpin under way looks for locks after it has been written.
    if not is_pinned(store, snapshot_id):
        if created:
            store.delete(path)
        raise RequestError(
            f"Snapshot {snapshot_id} is unpinned: its files may be deleted at any time",
            remedy=f"Pin it again with `lake snapshot pin {snapshot_id}`",
            snapshot_id=snapshot_id,
        )
    return lock if created else _lock(store, path)


def release(store: Store, lock_id: str) -> bool:
    """Say that a lock is no longer in use; tell whether it was registered."""
    known = is_registered(store, lock_id)
    store.delete(_path(lock_id))
    return known


def is_registered(store: Store, lock_id: str) -> bool:
    """Tell whether a lock is in use: then nobody gives its snapshot up."""
    return store.size(_path(lock_id)) is not None


def every_lock(store: Store) -> list[Lock]:
    """Return all locks in use, the oldest first.

    Raises:
        ChecksumError: A lock cannot be read, so nobody knows what it names.
    """
    found = [_lock(store, path) for path in store.sizes(FOLDER) if path.endswith(".json")]
    return sorted(found, key=lambda lock: (lock.created_at, lock.lock_id))


def holders(store: Store, snapshot_id: str) -> list[Lock]:
    """Return the locks in use that name a snapshot, the oldest first."""
    return [lock for lock in every_lock(store) if lock.snapshot_id == snapshot_id]


def _path(lock_id: str) -> str:
    if not _LOCK_ID.fullmatch(lock_id):
        raise RequestError(
            f"{lock_id!r} is no lock_id", remedy="It is the SHA-256 of the lock file's content"
        )
    return f"{FOLDER}/{lock_id}.json"


def _lock(store: Store, path: str) -> Lock:
    try:
        told = json.loads(store.get(path) or b"")
        return Lock(
            str(told["snapshot_id"]),
            str(told["lock_id"]),
            str(told["held_by"]),
            parse_time(str(told["created_at"])),
            told["note"],
        )
    except (ValueError, KeyError, TypeError):
        raise ChecksumError(
            f"{store.uri_of(path)} is not the lock that was registered",
            remedy="Restore it from a copy, or delete it once nobody relies on it",
            path=path,
        ) from None
