"""Pin and unpin: giving a snapshot up takes two steps, a reason, and nobody's lock.

``request_unpin`` says what would become deletable and hands out a token; ``confirm_unpin``
takes it. Who did what, when and why stays in the lake for ever (``lake.pinlog``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import (
    CommitConflictError,
    RequestError,
    SnapshotInUseError,
    StorageError,
)
from contracts.tables import TABLES
from lake.leases import MAINTAIN, held, lease
from lake.locks import holders
from lake.manifest import load_manifest
from lake.pinlog import (
    PinEvent,
    PinState,
    add_event,
    is_pinned,
    latest,
    pin_events,
    pin_state,
    pin_states,
    pinned_ids,
)
from lake.verify import verify

if TYPE_CHECKING:
    from contracts.time import Clock
    from lake.manifest import Manifest
    from lake.sources import Tables
    from lake.store import Store

__all__ = [
    "PinEvent",
    "PinState",
    "Reach",
    "UnpinRequest",
    "confirm_unpin",
    "is_pinned",
    "make_sure",
    "only_reached_by",
    "pin",
    "pin_events",
    "pin_state",
    "pin_states",
    "pinned_ids",
    "request_unpin",
]


@dataclass(frozen=True, slots=True)
class Reach:
    """Files that one snapshot alone keeps, and their size."""

    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UnpinRequest:
    """An unpin that waits for its confirmation."""

    snapshot_id: str
    token: str
    reach: Reach


def only_reached_by(tables: Tables, manifest: Manifest) -> Reach:
    """Return what would become deletable without a snapshot.

    That is every file of it that neither another pinned snapshot nor a table's newest
    version names. Reads manifests and logs, no data.
    """
    store = tables.store
    files = manifest.files
    for other in pinned_ids(store):
        if other != manifest.snapshot_id:
            for path in load_manifest(store, other).files:
                files.pop(path, None)
    for view in tables.views(list(TABLES)).values():
        for entry in view.files:
            files.pop(f"{view.spec.path}/{entry.path}", None)
    return Reach(len(files), sum(files.values()))


def request_unpin(
    tables: Tables, manifest: Manifest, *, why: str, by: str | None = None
) -> UnpinRequest:
    """Ask to give a snapshot up; it stays pinned until the token comes back.

    Args:
        tables: The lake's tables.
        manifest: The snapshot.
        why: The reason, kept for ever.
        by: Who asks; the user of this process when None.

    Raises:
        RequestError: No reason, or it is unpinned already.
        SnapshotInUseError: A lock names it.
        CommitConflictError: Somebody else changed its pin at the same moment.
    """
    store, name = tables.store, manifest.snapshot_id
    if not why.strip():
        raise RequestError("An unpin needs a reason", remedy='Say why, with --reason "..."')
    _refuse_in_use(store, name)
    if not is_pinned(store, name):
        raise _already_unpinned(store, name)
    reach = only_reached_by(tables, manifest)
    token = secrets.token_hex(4)
    event = PinState.UNPIN_REQUESTED
    add_event(store, tables.clock, name, event, why=why.strip(), by=by, token=token)
    return UnpinRequest(name, token, reach)


def confirm_unpin(
    tables: Tables, manifest: Manifest, *, token: str, by: str | None = None
) -> PinEvent:
    """Give a snapshot up: vacuum may delete what only it names.

    Raises:
        RequestError: The token is not that of the last request, or nobody asked.
        SnapshotInUseError: A lock names it.
        CommitConflictError: Somebody else changed its pin at the same moment.
    """
    store, name = tables.store, manifest.snapshot_id
    _refuse_in_use(store, name)
    events = pin_events(store, name)
    last = events[-1] if events else None
    if last is not None and last.event is PinState.UNPINNED:
        raise _already_unpinned(store, name)
    if last is None or last.event is not PinState.UNPIN_REQUESTED or last.token != token:
        raise RequestError(
            f"{token!r} does not confirm an unpin of {name}",
            remedy=f'Ask for a token with `lake snapshot unpin {name} --reason "..."`',
            snapshot_id=name,
        )
    added = add_event(store, tables.clock, name, PinState.UNPINNED, why=last.why, by=by)
    # Asked after the event stands: a lock that is being registered looks at the pin after it
    # has been written. So one of the two gives way.
    if holders(store, name):
        add_event(store, tables.clock, name, PinState.PINNED, why="a lock came first", by=by)
        _refuse_in_use(store, name)
    return added


def pin(
    tables: Tables, manifest: Manifest, *, why: str = "pinned again", by: str | None = None
) -> PinState:
    """Keep a snapshot after all; return what its state was.

    Raises:
        SnapshotIncompleteError: A file of it is gone already; it stays unpinned.
        ChecksumError: A file of it has another size.
        CommitConflictError: Somebody else changed its pin at the same moment, or a vacuum is
            under way.
    """
    store, clock, name = tables.store, tables.clock, manifest.snapshot_id
    sequence, before = latest(store, name)
    if before is PinState.PINNED:
        return before
    with lease(store, clock, "pin") as check:
        verify(store, manifest, level="quick")
        check()
        added = add_event(store, clock, name, PinState.PINNED, why=why, by=by)
        # Kept all along, it needs no look at a vacuum, nor may it be given up here.
        if not (before.keeps and added.sequence == sequence + 1):
            make_sure(store, clock, manifest, by=by)
    return before


def make_sure(
    store: Store, clock: Clock, manifest: Manifest, *, by: str | None = None, undo: bool = True
) -> None:
    """Check, under a lease, that no vacuum took a file of a pin that was just made.

    Args:
        store: The lake's store.
        clock: The clocks of the holder of the lease.
        manifest: What was pinned.
        by: Who pinned it; the user of this process when None.
        undo: Whether to give the pin up again where that is not sure.

    Raises:
        SnapshotIncompleteError: A file is gone.
        ChecksumError: A file has another size.
        CommitConflictError: A vacuum is under way, which may have looked before.
    """
    name = manifest.snapshot_id
    try:
        if any(each.kind == MAINTAIN for each in held(store)):
            raise CommitConflictError(
                f"Maintenance of {store.uri} is under way and may delete files of {name}",
                remedy="Run the same command again when `lake maintain` has ended",
                snapshot_id=name,
            )
        verify(store, manifest, level="quick")
    except StorageError:
        if undo:
            why = "its files may be gone"
            add_event(store, clock, name, PinState.UNPINNED, why=why, by=by)
        raise


def _refuse_in_use(store: Store, snapshot_id: str) -> None:
    locks = holders(store, snapshot_id)
    if locks:
        names = ", ".join(map(str, locks))
        raise SnapshotInUseError(
            f"Snapshot {snapshot_id} is locked: {names}",
            remedy="Release the lock first, where it is no longer needed",
            snapshot_id=snapshot_id,
            locks=[lock.lock_id for lock in locks],
        )


def _already_unpinned(store: Store, snapshot_id: str) -> RequestError:
    last = pin_events(store, snapshot_id)[-1]
    return RequestError(
        f"Snapshot {snapshot_id} is unpinned already, by {last.by} ({last.why})",
        remedy=f"`lake snapshot show {snapshot_id}` tells who did what and when",
        snapshot_id=snapshot_id,
    )
