"""What must stay: the data files that a head or a pinned snapshot names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.tables import TABLES
from lake.manifest import load_manifest
from lake.pinlog import pinned_ids

if TYPE_CHECKING:
    from lake.manifest import Manifest
    from lake.parts import FileEntry
    from lake.sources import Tables
    from lake.store import Store


class PinnedFiles:
    """The files that pinned snapshots name; each manifest is read once.

    Args:
        store: The lake's store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, frozenset[str]] = {}

    def paths(self) -> set[str]:
        """Return the paths, below the lake's root, as the pins stand at this moment.

        Raises:
            ChecksumError: A manifest is not what was written: nobody can tell what it needs.
            LakeFormatError: A manifest was written by a newer Tidemark.
        """
        needed: set[str] = set()
        for snapshot_id in pinned_ids(self._store):
            if snapshot_id not in self._known:
                self._known[snapshot_id] = manifest_paths(load_manifest(self._store, snapshot_id))
            needed |= self._known[snapshot_id]
        return needed


def manifest_paths(manifest: Manifest) -> frozenset[str]:
    """Return the data files of a snapshot below the lake's root."""
    return frozenset(
        f"{pinned['path']}/{told['path']}"
        for pinned in manifest.tables.values()
        for told in pinned["files"]
    )


def head_files(tables: Tables) -> dict[str, FileEntry]:
    """Return the data files that the heads of all tables name, below the lake's root."""
    return {
        f"{view.spec.path}/{entry.path}": entry
        for view in tables.views(list(TABLES)).values()
        for entry in view.files
    }
