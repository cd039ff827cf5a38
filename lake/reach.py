"""What must stay: the data files that a head or a pinned snapshot names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import SnapshotIncompleteError, TornLogError
from contracts.tables import TABLES
from lake.labels import every_label
from lake.locks import every_lock
from lake.manifest import load_manifest, manifest_path, snapshot_ids
from lake.pinlog import kept_ids, pin_state, pinned_ids
from lake.root import read_lake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lake.parts import FileEntry
    from lake.sources import Tables
    from lake.store import Store


@dataclass(frozen=True, slots=True)
class Named:
    """What a manifest names: files below the root, versions of tables, the lake it is of."""

    paths: frozenset[str]
    versions: Mapping[str, int]
    lake_id: str


class PinnedFiles:
    """The files that pinned snapshots name; each manifest is read once.

    Args:
        store: The lake's store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Named] = {}

    def paths(self) -> set[str]:
        """Return the paths, below the lake's root, as the pins stand at this moment.

        Raises:
            SnapshotIncompleteError: A manifest is gone that a label, a lock or a pin names.
            ChecksumError: A manifest is not what was written: nobody can tell what it needs.
            LakeFormatError: A manifest was written by a newer Tidemark.
        """
        needed: set[str] = set()
        pinned = pinned_ids(self._store)
        for name, who in named_snapshots(self._store).items():
            if name not in pinned and pin_state(self._store, name).keeps:
                raise SnapshotIncompleteError(
                    f"The manifest of snapshot {name} is gone, and {who} names it",
                    remedy=f"Restore {self._store.uri_of(manifest_path(name))} from a copy",
                    snapshot_id=name,
                )
        for snapshot_id in pinned:
            needed |= self.named(snapshot_id).paths
        return needed

    def named(self, snapshot_id: str) -> Named:
        """Return what a manifest names; a manifest never changes.

        Raises:
            UnknownSnapshotError: There is no manifest of that id.
            ChecksumError: It is not what was written.
            LakeFormatError: It was written by a newer Tidemark.
        """
        if snapshot_id not in self._known:
            manifest = load_manifest(self._store, snapshot_id)
            versions = {name: pinned["version"] for name, pinned in manifest.tables.items()}
            lake_id = manifest.beside["lake_id"]
            self._known[snapshot_id] = Named(frozenset(manifest.files), versions, lake_id)
        return self._known[snapshot_id]


def named_snapshots(store: Store) -> dict[str, str]:
    """Return the snapshots that labels, locks and pins name, and one of those who do."""
    named = dict.fromkeys(kept_ids(store), "its pin")
    named |= {label.snapshot_id: f"label {label.label!r}" for label in every_label(store)}
    return named | {lock.snapshot_id: f"lock {lock}" for lock in every_lock(store)}


def check_heads(tables: Tables, pins: PinnedFiles) -> None:
    """Refuse a lake whose newest commits are gone: what they named would look needless.

    A snapshot tells the version that each table had; no head of the same lake may be older.

    Raises:
        TornLogError: A head is older than a snapshot of this lake.
    """
    store = tables.store
    lake_id = read_lake(store).lake_id
    # Listed before the heads are read: a head is then no older than a sound snapshot.
    every = {snapshot_id: pins.named(snapshot_id) for snapshot_id in snapshot_ids(store)}
    heads = {name: tables[name].head().version for name in TABLES}
    for snapshot_id, named in every.items():
        for name, version in named.versions.items() if named.lake_id == lake_id else ():
            if heads.get(name, version) < version:
                path = tables[name].spec.path
                raise TornLogError(
                    f"{name} is at version {heads[name]}, and snapshot {snapshot_id} was made "
                    f"at version {version}: newer commits are gone",
                    remedy=f"Restore {store.uri_of(path)}/_delta_log from a copy",
                    table=name,
                )


def head_files(tables: Tables) -> dict[str, FileEntry]:
    """Return the data files that the heads of all tables name, below the lake's root."""
    return {
        f"{view.spec.path}/{entry.path}": entry
        for view in tables.views(list(TABLES)).values()
        for entry in view.files
    }
