"""What became of a snapshot's pin: events that are added and never deleted.

A snapshot is pinned from its creation. What changes that is an object
``pins/<snapshot_id>/<sequence>-<event>.json``, put with create-if-absent; the event with the
highest sequence is the state. Where two writers raced for one sequence the event that keeps
the files counts, and whoever gave the other up is told of a conflict.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from contracts.errors import ChecksumError, CommitConflictError, SnapshotIncompleteError
from contracts.response import canonical_json
from contracts.time import iso, parse_time
from lake.manifest import snapshot_ids
from lake.who import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from contracts.errors import StorageError
    from contracts.time import Clock
    from lake.store import Store

FOLDER = "pins"
_NAME = re.compile(r"(\d{6})-([a-z_]+)\.json")


class PinState(StrEnum):
    """What vacuum makes of a snapshot, the safest first."""

    PINNED = "pinned"
    UNPIN_REQUESTED = "unpin_requested"  # still kept: nobody has confirmed
    UNPINNED = "unpinned"

    @property
    def keeps(self) -> bool:
        """Whether the snapshot's files are kept."""
        return self is not PinState.UNPINNED


@dataclass(frozen=True, slots=True)
class PinEvent:
    """One thing that was done to a snapshot's pin.

    Attributes:
        sequence: Its place, from 1.
        event: The state that it brought.
        by: Who did it.
        at: When, storage clock.
        why: The reason given.
        token: What confirms an unpin that was requested.
    """

    sequence: int
    event: PinState
    by: str
    at: datetime
    why: str
    token: str | None = None


def pin_state(store: Store, snapshot_id: str) -> PinState:
    """Return the state of a snapshot's pin; one of which nothing is said is pinned."""
    return latest(store, snapshot_id)[1]


def latest(store: Store, snapshot_id: str) -> tuple[int, PinState]:
    """Return the sequence of the newest event of a snapshot's pin, 0 for none, and its state."""
    names = _names(store, f"{FOLDER}/{snapshot_id}")
    return _state(names.get(snapshot_id, ()))


def is_pinned(store: Store, snapshot_id: str) -> bool:
    """Tell whether vacuum keeps what a snapshot names."""
    return pin_state(store, snapshot_id).keeps


def pin_states(store: Store) -> dict[str, PinState]:
    """Return the state of every snapshot of a lake by id, in the order of the ids."""
    told = _names(store, FOLDER)
    return {name: _state(told.get(name, ()))[1] for name in snapshot_ids(store)}


def pinned_ids(store: Store) -> list[str]:
    """Return the ids of all snapshots whose files are kept, in order."""
    return [name for name, state in pin_states(store).items() if state.keeps]


def kept_ids(store: Store) -> list[str]:
    """Return the ids of which events say that their files are kept, manifest or not."""
    told = _names(store, FOLDER)
    return sorted(name for name, events in told.items() if _state(events)[1].keeps)


def pin_events(store: Store, snapshot_id: str) -> list[PinEvent]:
    """Return everything that was done to a snapshot's pin, the oldest first.

    Raises:
        ChecksumError: An event cannot be read.
    """
    paths = sorted(store.sizes(f"{FOLDER}/{snapshot_id}"))
    found = [_event(store, path) for path in paths if _NAME.fullmatch(path.rpartition("/")[2])]
    return sorted(found, key=lambda each: (each.sequence, not each.event.keeps, each.event))


def add_event(
    store: Store,
    clock: Clock,
    snapshot_id: str,
    event: PinState,
    *,
    why: str,
    by: str | None = None,
    token: str | None = None,
) -> PinEvent:
    """Add what was done to a snapshot's pin.

    Raises:
        CommitConflictError: Somebody else changed the pin at the same moment.
    """
    folder = f"{FOLDER}/{snapshot_id}"
    sequence = _state(_names(store, folder).get(snapshot_id, ()))[0] + 1
    added = PinEvent(sequence, event, by or user_name(), clock.storage(), why, token)
    told = {"event": event, "by": added.by, "at": iso(added.at), "why": why, "token": token}
    path = f"{folder}/{sequence:06d}-{event}.json"
    alone = store.create(path, canonical_json(told).encode())
    rivals = [
        name
        for name in _names(store, folder).get(snapshot_id, ())
        if name.startswith(f"{sequence:06d}-") and name != path.rpartition("/")[2]
    ]
    if not alone or rivals:
        raise CommitConflictError(
            f"Somebody else changed the pin of {snapshot_id} at the same moment",
            remedy=f"Look at `lake snapshot show {snapshot_id}`, then decide again",
            snapshot_id=snapshot_id,
        )
    return added


def explained(store: Store, snapshot_id: str, fault: StorageError) -> StorageError:
    """Return the error for a file that is gone, saying who gave the snapshot up, if anybody."""
    if not isinstance(fault, SnapshotIncompleteError) or is_pinned(store, snapshot_id):
        return fault
    last = pin_events(store, snapshot_id)[-1]
    return SnapshotIncompleteError(
        f"{fault.message}: {last.by} unpinned snapshot {snapshot_id} at {iso(last.at)} "
        f"({last.why})",
        remedy="Import the snapshot from an export, or read another one",
        **{**fault.context, "snapshot_id": snapshot_id},
    )


def _names(store: Store, folder: str) -> dict[str, list[str]]:
    """Return the names of the events below a folder, by snapshot."""
    found: dict[str, list[str]] = {}
    for path in store.sizes(folder):
        place, _, name = path.rpartition("/")
        if name.endswith(".json"):
            found.setdefault(place.rpartition("/")[2], []).append(name)
    return found


def _state(names: Iterable[str]) -> tuple[int, PinState]:
    """Return the highest sequence and its state; what cannot be read keeps the files."""
    highest, states = 0, [PinState.PINNED]
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        sequence = int(match[1]) if match else 999_999
        known = match is not None and match[2] in list(PinState)
        state = PinState(match[2]) if match is not None and known else PinState.PINNED
        if sequence > highest:
            highest, states = sequence, [state]
        else:
            states.append(state)
    return highest, min(states, key=list(PinState).index)


def _event(store: Store, path: str) -> PinEvent:
    match = _NAME.fullmatch(path.rpartition("/")[2])
    try:
        told = json.loads(store.get(path) or b"")
        return PinEvent(
            int(match[1]) if match else 0,
            PinState(told["event"]),
            str(told["by"]),
            parse_time(str(told["at"])),
            str(told["why"]),
            told["token"],
        )
    except (ValueError, KeyError, TypeError):
        raise ChecksumError(
            f"{store.uri_of(path)} is not what was written of the pin",
            remedy="Restore it from a copy",
            path=path,
        ) from None
