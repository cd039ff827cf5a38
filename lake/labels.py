"""Labels: names that move from snapshot to snapshot, and what a text that names one means.

An id never moves; a label is a small object ``labels/<name>.json`` that says which snapshot
it stands for, and is put again when it moves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import (
    AmbiguousSnapshotError,
    ChecksumError,
    RequestError,
    UnknownSnapshotError,
)
from contracts.names import suggest
from contracts.response import canonical_json
from contracts.time import iso, parse_time
from lake.manifest import find_manifest, load_manifest, snapshot_ids
from lake.who import user_name

if TYPE_CHECKING:
    from datetime import datetime

    from contracts.time import Clock
    from lake.manifest import Manifest
    from lake.store import Store

FOLDER = "labels"
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LIKE_AN_ID = re.compile(r"\d{4}-\d{2}-\d{2}(-[0-9a-f]*)?|[0-9a-f]{4,64}")
_ID = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{1,64}")
# So much of an id, or of its hash alone, names it where no other snapshot starts alike.
_LEAST_OF_ID = 10
_LEAST_OF_HASH = 4


@dataclass(frozen=True, slots=True)
class Label:
    """A label as it stands.

    Attributes:
        label: Its name.
        snapshot_id: What it stands for.
        set_at: When it was set, storage clock.
        set_by: Who set it.
        previous: What it stood for before, or None.
    """

    label: str
    snapshot_id: str
    set_at: datetime
    set_by: str
    previous: str | None = None


def check_label(name: str) -> str:
    """Return a label's name if it is one.

    Raises:
        RequestError: It holds other characters than labels may, or looks like an id.
    """
    if not _LABEL.fullmatch(name):
        raise RequestError(
            f"{name!r} is no label",
            remedy="Write up to 64 of a-z 0-9 . _ - and begin with a letter or a digit",
        )
    if _LIKE_AN_ID.fullmatch(name):
        raise RequestError(
            f"The label {name!r} looks like an id, or a part of one",
            remedy="Add a word to it: ids stay, labels move, and nobody should confuse them",
        )
    return name


def set_label(
    store: Store, clock: Clock, name: str, snapshot_id: str, *, by: str | None = None
) -> Label:
    """Let a label stand for a snapshot; whatever it stood for before is kept as ``previous``.

    Raises:
        RequestError: A wrong name.
        UnknownSnapshotError: No such snapshot.
    """
    check_label(name)
    load_manifest(store, snapshot_id)
    before = find_label(store, name)
    if before is not None and before.snapshot_id == snapshot_id:
        return before
    previous = None if before is None else before.snapshot_id
    label = Label(name, snapshot_id, clock.storage(), by or user_name(), previous)
    told = {
        "label": name,
        "snapshot_id": snapshot_id,
        "set_at": iso(label.set_at),
        "set_by": label.set_by,
        "previous": previous,
    }
    store.put(_path(name), canonical_json(told).encode())
    return label


def find_label(store: Store, name: str) -> Label | None:
    """Return a label, or None where nobody has set it.

    Raises:
        ChecksumError: What is stored of it cannot be read.
    """
    content = store.get(_path(name)) if _LABEL.fullmatch(name) else None
    if content is None:
        return None
    try:
        told = json.loads(content)
        return Label(
            name,
            str(told["snapshot_id"]),
            parse_time(str(told["set_at"])),
            str(told["set_by"]),
            told["previous"],
        )
    except (ValueError, KeyError, TypeError):
        raise ChecksumError(
            f"{store.uri_of(_path(name))} is not a label",
            remedy=f"Set it again with `lake snapshot label {name} SNAPSHOT`, or delete it",
            path=_path(name),
        ) from None


def every_label(store: Store) -> list[Label]:
    """Return all labels, in the order of their names."""
    found = [find_label(store, name) for name in _names(store)]
    return [label for label in found if label is not None]


def labels_by_snapshot(store: Store) -> dict[str, list[str]]:
    """Return the names of the labels that stand for each snapshot that has any."""
    found: dict[str, list[str]] = {}
    for label in every_label(store):
        found.setdefault(label.snapshot_id, []).append(label.label)
    return found


def resolve_snapshot(store: Store, text: str) -> Manifest:
    """Return the snapshot that a text names.

    That is a whole id, else a label, else the beginning of exactly one id (ten characters at
    least) or of its hash (four at least).

    Raises:
        UnknownSnapshotError: Nothing of that name; the nearest ids and labels are offered.
        AmbiguousSnapshotError: Several ids begin like this; ``matches`` lists them.
        ChecksumError: The manifest is not the one that the id was given for.
        LakeFormatError: It was written by a newer Tidemark.
    """
    exact = find_manifest(store, text) if _ID.fullmatch(text) else None
    if exact is not None:
        return exact
    label = find_label(store, text)
    if label is not None:
        found = find_manifest(store, label.snapshot_id)
        if found is None:
            raise UnknownSnapshotError(
                f"Label {text!r} stands for {label.snapshot_id}, which is not in {store.uri}",
                remedy="Import the snapshot, or set the label to another",
                snapshot_id=label.snapshot_id,
            )
        return found
    ids = snapshot_ids(store)
    matches = [each for each in ids if _abbreviates(text, each)]
    if len(matches) == 1:
        return load_manifest(store, matches[0])
    if matches:
        shown = ", ".join(matches[:6]) + (" ..." if len(matches) > 6 else "")
        raise AmbiguousSnapshotError(
            f"{text!r} may be any of {len(matches)} snapshots",
            remedy=f"Write more of the id: {shown}",
            matches=matches,
        )
    raise UnknownSnapshotError(
        f"There is no snapshot {text[:80]!r} in {store.uri}",
        remedy=suggest(text[:80], [*_names(store), *ids[::-1]]),
        snapshot_id=text,
    )


def _abbreviates(text: str, snapshot_id: str) -> bool:
    digits = snapshot_id.rpartition("-")[2]
    by_id = len(text) >= _LEAST_OF_ID and snapshot_id.startswith(text)
    return by_id or (len(text) >= _LEAST_OF_HASH and digits.startswith(text))


def _names(store: Store) -> list[str]:
    names = (path.rpartition("/")[2] for path in store.sizes(FOLDER))
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(name for name in found if _LABEL.fullmatch(name))


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"
