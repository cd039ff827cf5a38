"""The one door to Delta: Polars writes the files, delta-rs commits them.

Rules that hold for every commit, because broken they lose or double rows without an error:

- a commit carries an app transaction, one per table and unit of writing, read and written
  on one handle: a writer that raced fails, opens the table again and compares again;
- after any error the log is searched for the commit's own id before anything is retried:
  a commit may have been stored and not acknowledged;
- the schema is checked for exact equality, partition values are plain, statistics are exact
  and cover keys and times only;
- files that a failed commit wrote are left for the vacuum: they may be in the log after all.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import ArrayType, PrimitiveType
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from contracts.dictionary import TABLE_PROPERTIES
from contracts.errors import (
    CommitConflictError,
    InvariantError,
    LakeFormatError,
    StoreUnavailableError,
    TornLogError,
    UnsafeStoreError,
)
from contracts.time import to_millis
from lake.inventory import Inventory
from lake.leases import GRACE
from lake.logs import log_path
from lake.outcome import STORED_NOT, version_of
from lake.parts import FileEntry, Part, write_part
from lake.store import raise_store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from contracts.spec import TableSpec
    from contracts.time import Clock
    from lake.store import Store

_ATTEMPTS = 40
_WRITERS = 2
_FAILURES = 3
_RECENT_COMMITS = 10
_COMMIT_ID = "tidemark_commit_id"


@dataclass(frozen=True, slots=True)
class View:
    """One version of a table: its number and its files."""

    spec: TableSpec
    version: int
    files: tuple[FileEntry, ...]

    def partition(self, values: Mapping[str, Any]) -> list[FileEntry]:
        """Return the files of one partition."""
        return [entry for entry in self.files if entry.partition == values]


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit does: files that go, and frames that each become one file.

    ``data_change`` is False where the rows stay the same, as in a compaction.
    """

    write: Sequence[pl.DataFrame] = ()
    remove: Sequence[FileEntry] = ()
    data_change: bool = True
    metadata: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of a transaction: the version that holds, and whether it was made here."""

    version: int
    changed: bool


class Table:
    """One Delta table of a lake; safe to share between the threads of a process."""

    def __init__(self, store: Store, spec: TableSpec, clock: Clock) -> None:
        self.store = store
        self.spec = spec
        self._clock = clock
        self._lock = threading.RLock()
        self._handle: DeltaTable | None = None
        self._last: View | None = None

    @property
    def uri(self) -> str:
        """Address of the table."""
        return self.store.uri_of(self.spec.path)

    def exists(self) -> bool:
        """Tell whether the table has been created."""
        with self._lock:
            return self._handle is not None or self._open_or_none() is not None

    def create(self) -> None:
        """Create the table unless it exists; several processes may do so at once."""
        if self.exists():
            return
        for attempt in range(1, _FAILURES + 1):
            try:
                self._create()
                break
            except (DeltaError, OSError) as error:
                if self.exists():
                    break
                if self.store.is_local or attempt == _FAILURES:
                    raise_store_error(f"create table {self.uri}", error)
        self.store.sync(log_path(self.spec.path, 0))

    def _create(self) -> None:
        names = ",".join(self.spec.statistics_columns)
        DeltaTable.create(
            self.uri,
            schema=delta_schema(self.spec),
            mode="error",
            partition_by=list(self.spec.partition_by),
            name=self.spec.name,
            description=self.spec.grain,
            configuration={**TABLE_PROPERTIES, "delta.dataSkippingStatsColumns": names},
            storage_options=self.store.options or None,
            # Retried, the loser of a race would commit the creation again as version 1.
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def head(self) -> View:
        """Return the newest version; a table that was never created has version -1."""
        with self._lock:
            handle = self._fresh()
            return View(self.spec, -1, ()) if handle is None else self._view(handle)

    def inventory(self) -> Inventory | None:
        """Return what the newest version names, in columns; None where there is no table."""
        with self._lock:
            handle = self._fresh()
            return None if handle is None else self._inventory(handle)

    def at(self, version: int) -> View:
        """Return an older version, as the log tells it."""
        with self._lock:
            if version < 0:
                return View(self.spec, -1, ())
            handle = self._handle
            if handle is not None and handle.version() == version:
                return self._view(handle)
            try:
                older = DeltaTable(
                    self.uri, version=version, storage_options=self.store.options or None
                )
            except (DeltaError, OSError) as error:
                self._raise_unreadable(error)
            return self._view(older)

    def checkpoint(self) -> int:
        """Write a checkpoint of the newest version, and return that version.

        Raises:
            StoreUnavailableError: The store failed; the table is as it was.
        """
        with self._lock:
            handle = self._fresh()
            if handle is None:
                return -1
            try:
                handle.create_checkpoint()
            except (DeltaError, OSError) as error:
                raise_store_error(f"write a checkpoint of {self.uri}", error)
            return handle.version()

    def properties(self) -> dict[str, str]:
        """Return the table's properties; none where there is no table."""
        with self._lock:
            handle = self._fresh()
            return {} if handle is None else dict(handle.metadata().configuration)

    def mend_properties(self) -> None:
        """Give the table the properties that every table of a lake is created with.

        Raises:
            StoreUnavailableError: The store failed; the table is as it was.
        """
        with self._lock:
            handle = self._fresh()
            if handle is None:
                return
            try:
                handle.alter.set_table_properties(dict(TABLE_PROPERTIES))
            except (DeltaError, OSError) as error:
                raise_store_error(f"set the properties of {self.uri}", error)
            finally:
                self._handle = None

    def transact(self, app: str, plan: Callable[[View], Change | None]) -> Committed:
        """Commit what ``plan`` makes of the newest version, or nothing.

        ``plan`` is called again with a newer version whenever another writer of the same
        ``app`` got there first, so it must decide from the view alone.

        Raises:
            CommitConflictError: The race was lost too many times.
            StoreUnavailableError: The store failed; nothing became visible, unless its
                ``outcome`` is ``unknown``.
        """
        self.create()
        failures = 0
        with self._lock:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    time.sleep(random.uniform(0.005, 0.02 * 2 ** min(attempt, 6)))
                    self._handle = None
                try:
                    done = self._attempt(app, plan)
                except StoreUnavailableError as error:
                    failures += 1
                    if error.context.get("outcome") != STORED_NOT or failures == _FAILURES:
                        raise
                    continue
                if done is not None:
                    return done
        raise CommitConflictError(
            f"{_ATTEMPTS} commits to {self.uri} lost the race to other writers",
            remedy="Run again when fewer processes write the same venue and timeframe",
            table=self.spec.name,
        )

    def _attempt(self, app: str, plan: Callable[[View], Change | None]) -> Committed | None:
        """Plan from the newest version and commit; None if another writer was first."""
        handle = self._fresh()
        if handle is None:
            if self.store.is_local:
                raise InvariantError(f"{self.uri} vanished after its creation")
            raise StoreUnavailableError(
                f"{self.uri} was created, and a listing of the store does not show it",
                remedy="Run again; a store that goes on like this is not supported",
                outcome=STORED_NOT,
            )
        view = self._view(handle)
        change = plan(view)
        if change is None or not (change.write or change.remove):
            return Committed(view.version, changed=False)
        version = self._commit(handle, view, app, change)
        if version is None:
            return None
        for each in range(view.version + 1, version + 1):
            self.store.sync(log_path(self.spec.path, each))
        return Committed(version, changed=True)

    def _commit(self, handle: DeltaTable, view: View, app: str, change: Change) -> int | None:
        """Write the files and commit; return the version, None if another was first.

        Raises:
            UnsafeStoreError: The commit was acknowledged and is not in the log.
            StoreUnavailableError: The files took so long that a vacuum may have deleted some.
        """
        commit_id = uuid.uuid4().hex
        began = self._clock.storage()
        actions = self._actions(change)
        self._refuse_late(began)
        seen = self._transaction_version(handle, app)
        failure = None
        try:
            handle.create_write_transaction(
                actions,
                mode="append",
                schema=delta_schema(self.spec),
                partition_by=list(self.spec.partition_by),
                commit_properties=CommitProperties(
                    custom_metadata={_COMMIT_ID: commit_id, **change.metadata},
                    max_commit_retries=500,
                    app_transactions=[Transaction(app, 0 if seen is None else seen + 1)],
                ),
            )
        except (DeltaError, OSError) as error:
            self._handle = None
            failure = error
        version = version_of(self.store, self.spec.path, after=view.version, commit_id=commit_id)
        if version is not None:
            return version
        if failure is None:
            raise UnsafeStoreError(
                f"A commit to {self.uri} was acknowledged and is not in the log",
                remedy="Do not write to this store; `lake doctor` probes it",
                table=self.spec.name,
            )
        if not isinstance(failure, CommitFailedError):
            known = {} if self.store.is_local else {"outcome": STORED_NOT}
            raise_store_error(f"commit to {self.uri}", failure, **known)
        return None

    def _transaction_version(self, handle: DeltaTable, app: str) -> int | None:
        try:
            return handle.transaction_version(app)
        except (DeltaError, OSError) as error:
            self._raise_unreadable(error)

    def _refuse_late(self, began: datetime) -> None:
        """Refuse to commit files so old that a vacuum may take them for a crash's."""
        if self._clock.storage() - began > GRACE / 2:
            raise StoreUnavailableError(
                f"Writing the files of a commit to {self.uri} took longer than half the "
                f"vacuum's grace of {GRACE}",
                remedy="Run again; nothing was committed",
                outcome=STORED_NOT,
            )

    def _actions(self, change: Change) -> list[AddAction | RemoveAction]:
        """Write the files; return what the commit says of them.

        A file that is removed and comes out as it was stays: files are named by content.
        """
        now = to_millis(self._clock.storage())
        parts = {part.entry.path: part for part in self._write(change.write)}
        removed = {entry.path: entry for entry in change.remove}
        same = parts.keys() & removed.keys()
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(path, change.data_change, now, entry.size, _told(entry))
            for path, entry in removed.items()
            if path not in same
        ]
        for path, part in parts.items():
            entry = part.entry
            if path not in same:
                actions.append(
                    AddAction(path, entry.size, _told(entry), now, change.data_change, part.stats)
                )
        return actions

    def _write(self, frames: Sequence[pl.DataFrame]) -> list[Part]:
        """Write each frame as a file, one being hashed and stored while the next is encoded."""
        checked = [self.spec.check_schema(frame) for frame in frames]
        if len(checked) < 2:
            return [write_part(self.store, self.spec, frame) for frame in checked]
        with ThreadPoolExecutor(_WRITERS) as pool:
            return list(pool.map(lambda frame: write_part(self.store, self.spec, frame), checked))

    def _fresh(self) -> DeltaTable | None:
        """Return the handle at the newest version, or None where there is no table.

        Versions have no gaps, so a handle whose next commit is not there is the newest. That
        is asked first: delta-rs would list the log, which grows with every commit.
        """
        handle = self._handle
        if handle is None:
            return self._open_or_none()
        before = handle.version()
        if self.store.size(log_path(self.spec.path, before + 1)) is None:
            return handle
        try:
            handle.update_incremental()
        except (DeltaError, OSError):
            self._handle = None
            return self._open_or_none()
        self._check_torn(before + 1, handle.version())
        return handle

    def _open_or_none(self) -> DeltaTable | None:
        try:
            handle = DeltaTable(self.uri, storage_options=self.store.options or None)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            self._raise_unreadable(error)
        newest = handle.version()
        self._check_torn(max(0, newest - _RECENT_COMMITS), newest)
        self._check_schema(handle)
        self._handle = handle
        return handle

    def _check_schema(self, handle: DeltaTable) -> None:
        found = handle.schema()
        if found != delta_schema(self.spec):
            raise LakeFormatError(
                f"{self.uri} has another schema than contract {self.spec.name} version "
                f"{self.spec.version}",
                remedy="Read it with the Tidemark that wrote it, or migrate the lake",
                table=self.spec.name,
            )

    def _check_torn(self, first: int, last: int) -> None:
        """Refuse a log whose newest commits are empty files, as a power loss leaves them."""
        if not self.store.is_local:
            return
        for version in range(first, last + 1):
            path = log_path(self.spec.path, version)
            if self.store.size(path) == 0:
                self._handle = None
                raise TornLogError(
                    f"Commit {version} of {self.uri} is an empty file: its rows are lost",
                    remedy=f"Move {self.store.uri_of(path)} away and ingest its span again",
                    path=path,
                )

    def _raise_unreadable(self, error: Exception) -> NoReturn:
        """Tell a broken log from a store that cannot be reached: the remedies differ."""
        text = str(error).casefold()
        if "contiguous commit" in text:
            why, remedy = "a commit is missing", "Restore the missing file from a copy of the lake"
        elif "json error" in text:
            why = str(error).splitlines()[0][:200]
            remedy = "Move the broken commit file away and ingest its span again"
        else:
            raise_store_error(f"open table {self.uri}", error)
        raise TornLogError(
            f"The Delta log of {self.uri} cannot be read: {why}",
            remedy=remedy,
            table=self.spec.name,
        ) from error

    def _view(self, handle: DeltaTable) -> View:
        version = handle.version()
        if self._last is None or self._last.version != version:
            self._last = View(self.spec, version, tuple(self._inventory(handle).entries()))
        return self._last

    def _inventory(self, handle: DeltaTable) -> Inventory:
        try:
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        except (DeltaError, OSError) as error:
            self._raise_unreadable(error)
        return Inventory.of(self.spec, handle.version(), actions)


def _told(entry: FileEntry) -> dict[str, str | None]:
    """Return the partition values of a file as the log states them."""
    return {name: str(value) for name, value in entry.partition.items()}


def delta_schema(spec: TableSpec) -> Schema:
    """Return the Delta schema of a table."""
    return Schema([Field(column.name, _delta_type(column.dtype)) for column in spec.columns])


def _delta_type(dtype: pl.DataType) -> PrimitiveType | ArrayType:
    if isinstance(dtype, pl.Datetime):
        return PrimitiveType("timestamp")
    if isinstance(dtype, pl.Decimal):
        return PrimitiveType(f"decimal({dtype.precision},{dtype.scale})")
    if isinstance(dtype, pl.List):
        return ArrayType(PrimitiveType("string"), contains_null=True)
    names: dict[type[pl.DataType], str] = {
        pl.String: "string",
        pl.Float64: "double",
        pl.Int32: "integer",
        pl.Int64: "long",
        pl.Boolean: "boolean",
        pl.Date: "date",
    }
    return PrimitiveType(names[type(dtype)])
