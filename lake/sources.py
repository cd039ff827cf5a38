"""Who says which files a table has: the heads of the Delta logs, or a snapshot's manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from contracts.errors import RequestError, StorageError, TableNotPinnedError
from contracts.tables import TABLES, table
from lake.tables import Table, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.spec import TableSpec
    from contracts.time import Clock
    from lake.inventory import Inventory
    from lake.manifest import Manifest
    from lake.parts import FileEntry
    from lake.store import Store

PATH_ORDER = tuple(TABLES)


class Source(Protocol):
    """Says which files the tables have."""

    store: Store

    def views(self, names: Sequence[str]) -> dict[str, View]:
        """Return one consistent cut of several tables."""

    def trust(self, view: View, files: Sequence[FileEntry]) -> None:
        """Make sure that files are what they should be before they are read."""


class Tables:
    """The Delta tables of a lake, opened when first asked for; the heads as a source."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._open: dict[str, Table] = {}

    def __getitem__(self, name: str) -> Table:
        if name not in self._open:
            self._open[name] = Table(self.store, table(name), self.clock)
        return self._open[name]

    def views(self, names: Sequence[str]) -> dict[str, View]:
        """Return the heads, resolved in the reverse order of the path.

        Writers commit along the path, so what a later table claims, an earlier one that is
        resolved after it already holds.
        """
        return {name: self[name].head() for name in _backwards(names)}

    def inventories(self, names: Sequence[str]) -> dict[str, Inventory]:
        """Return what the heads name, resolved as ``views`` does; of tables that stand."""
        found = {name: self[name].inventory() for name in _backwards(names)}
        return {name: each for name, each in found.items() if each is not None}

    def trust(self, view: View, files: Sequence[FileEntry]) -> None:
        """Check existence and size of the files of a local lake, where that costs nothing.

        Raises:
            SnapshotIncompleteError: A file is missing.
            ChecksumError: A file has another size than the log says.
        """
        from lake.verify import check_files

        if self.store.is_local:
            check_files(self.store, view.spec, files, hashed=False)


def _backwards(names: Sequence[str]) -> list[str]:
    return sorted(names, key=PATH_ORDER.index, reverse=True)


class NoHeads:
    """The heads of an export: there are none, and whoever wants to read them is told."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def views(self, names: Sequence[str]) -> dict[str, View]:
        """Refuse.

        Raises:
            RequestError: Always.
        """
        raise RequestError(
            f"{self.store.uri} holds exported snapshots only, and no newest state",
            remedy="Name one with snapshot=, or --snapshot; `lake snapshot list` shows them",
        )

    def trust(self, view: View, files: Sequence[FileEntry]) -> None:
        """Do nothing: there are no files."""


class Pinned:
    """A snapshot's manifest as a source; the Delta logs are not asked.

    Args:
        store: Where the files are.
        manifest: The snapshot.
        verify: Hash each file before it is read for the first time.
    """

    def __init__(self, store: Store, manifest: Manifest, *, verify: bool = False) -> None:
        self.store = store
        self.manifest = manifest
        self._verify = verify
        self._trusted: set[tuple[str, str]] = set()

    def views(self, names: Sequence[str]) -> dict[str, View]:
        """Return the tables as the manifest pins them.

        One that did not exist then has no rows. One that was not to be pinned raises
        ``TableNotPinnedError`` as soon as a read needs it, not before.
        """
        return {name: self._view(name) for name in names}

    def _view(self, name: str) -> View:
        try:
            return self.manifest.view(name)
        except TableNotPinnedError as error:
            return cast(View, _NotPinned(table(name), error))

    def trust(self, view: View, files: Sequence[FileEntry]) -> None:
        """Check existence and size of the files, and their SHA-256 when verifying.

        Raises:
            SnapshotIncompleteError: A file is missing.
            ChecksumError: A file is not what was pinned.
        """
        from lake.pinlog import explained
        from lake.verify import check_files

        fresh = [entry for entry in files if (view.spec.name, entry.path) not in self._trusted]
        try:
            check_files(self.store, view.spec, fresh, hashed=self._verify)
        except StorageError as fault:
            raise explained(self.store, self.manifest.snapshot_id, fault) from None
        self._trusted |= {(view.spec.name, entry.path) for entry in fresh}


class _NotPinned:
    """A view of which nobody may know anything but whose it is."""

    def __init__(self, spec: TableSpec, error: TableNotPinnedError) -> None:
        self.spec = spec
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error
