"""Leases: who is at work on files that no manifest names yet.

A lease is a small object below ``leases/``. While one is younger than the grace, nothing is
deleted: its holder may be about to pin or to commit files that look unreachable. Whoever
holds one checks before the step that counts that it is young enough, so that a lease which
a vacuum took for dead is never relied on.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from contracts.errors import InvalidTimeError, SnapshotIncompleteError
from contracts.response import canonical_json
from contracts.time import iso, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from contracts.time import Clock
    from lake.store import Store

FOLDER = "leases"
GRACE = timedelta(hours=1)
# The kind of lease under which a vacuum deletes.
MAINTAIN = "maintain"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it stands in the store.

    Attributes:
        path: Below the lake's root.
        kind: What its holder does; ``unknown`` where the object cannot be read.
        created_at: What its holder's clock said, or None where the object cannot be read.
        stored_at: What the store's clock said.
    """

    path: str
    kind: str
    created_at: datetime | None
    stored_at: datetime

    def is_live(self, now: datetime, grace: timedelta) -> bool:
        """Tell whether the lease holds at ``now``.

        The later of its two times counts, the holder's as far as it is believed: a clock that
        is years ahead must not hold up deletion for years.
        """
        told = min(self.created_at or self.stored_at, self.stored_at + grace)
        newest = max(self.stored_at, told)
        return now - newest < grace


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that is held here; called, it refuses to go on once it is too old.

    Attributes:
        path: Below the lake's root.
        kind: What the holder does.
        grace: Age from which on others take the lease for dead.
    """

    path: str
    kind: str
    grace: timedelta
    _clock: Clock
    _began: datetime

    def __call__(self) -> None:
        """Check that the lease is no older than half the grace.

        Raises:
            SnapshotIncompleteError: It is.
        """
        if self._clock.storage() - self._began > self.grace / 2:
            raise SnapshotIncompleteError(
                f"The {self.kind} took longer than half the vacuum's grace of {self.grace}",
                remedy="Run it again; nothing was pinned",
            )


@contextmanager
def lease(store: Store, clock: Clock, kind: str, grace: timedelta = GRACE) -> Iterator[Holding]:
    """Hold a lease; yield what checks, when called, that it is no older than half the grace.

    Args:
        store: The lake's store.
        clock: Its storage time dates the lease.
        kind: What the holder does: ``snapshot``, ``import``, ``pin``, ``maintain``.
        grace: Age from which on others take the lease for dead.

    Raises:
        SnapshotIncompleteError: By the check: the work took longer than half the grace.
    """
    path = f"{FOLDER}/{uuid.uuid4().hex}.json"
    began = clock.storage()
    store.create(path, canonical_json({"kind": kind, "created_at": iso(began)}).encode())

    try:
        yield Holding(path, kind, grace, clock, began)
    finally:
        store.delete(path)


def every_lease(store: Store) -> list[Lease]:
    """Return all leases, live and dead, the oldest first."""
    found = [
        _lease(store, path, entry.modified)
        for path, entry in store.listing(FOLDER).items()
        if path.endswith(".json")
    ]
    return sorted((each for each in found if each is not None), key=lambda each: each.stored_at)


def find_lease(store: Store, path: str) -> Lease | None:
    """Return one lease as it stands, with the store's time of it."""
    listed = store.listing(FOLDER).get(path)
    return None if listed is None else _lease(store, path, listed.modified)


def held(store: Store, grace: timedelta = GRACE) -> list[Lease]:
    """Return the leases that hold, the oldest first; for whoever holds one of them.

    The newest tells the store's time: the caller's own clock may be wrong, and by it a vacuum
    under way may look dead.
    """
    leases = every_lease(store)
    now = max((each.stored_at for each in leases), default=None)
    return [] if now is None else [each for each in leases if each.is_live(now, grace)]


def _lease(store: Store, path: str, stored_at: datetime) -> Lease | None:
    content = store.get(path)
    if content is None:
        return None
    try:
        told = json.loads(content)
        return Lease(path, str(told["kind"]), parse_time(str(told["created_at"])), stored_at)
    except (ValueError, KeyError, TypeError, InvalidTimeError):
        return Lease(path, "unknown", None, stored_at)
