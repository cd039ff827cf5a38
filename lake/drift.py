"""What differs between a lock and what is there, fact by fact.

*Data* drift means that other rows would be read than those that were locked: it is always
refused. *Engine* drift means that the same rows would be read by other versions of the
packages: it is refused unless the caller allows it. Damage (a file that is missing or has
changed) is no drift: it keeps its own errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from contracts.errors import LockDriftError, TidemarkError, UnknownSnapshotError
from lake.lockfile import Answer, answer_of, locked_table, packages
from lake.manifest import content_hash, load_manifest
from lake.parts import read_row_hash
from lake.root import read_lake
from lake.rowhash import combine
from lake.sources import Pinned, Tables
from lake.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contracts.time import Clock
    from lake.lockfile import Lock, LockedQuery, LockedTable
    from lake.manifest import Manifest
    from lake.sources import Source
    from lake.store import Store

_SHORT = 12
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Change:
    """One fact that differs."""

    kind: Literal["data", "engine"]
    what: str
    locked: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: {self.locked} in the lock, {self.found} here"


def locked_manifest(
    lock: Lock, store: Store, *, clock: Clock, allow_engine_drift: bool = False
) -> Manifest:
    """Return the manifest of the locked snapshot, once nothing of it has drifted.

    Args:
        lock: What is to hold.
        store: A lake, the lock's own or a copy of it.
        clock: For reading the newest state, to say what changed.
        allow_engine_drift: Whether other versions of the packages may read.

    Raises:
        LockDriftError: Something differs; ``changes`` lists all of it, fact by fact.
        ChecksumError: The manifest is not what was written.
    """
    engine = [] if allow_engine_drift else list(engine_changes(lock))
    try:
        manifest = load_manifest(store, lock.snapshot_id)
    except UnknownSnapshotError:
        changes = [*_without_snapshot(lock, store, clock), *engine]
        raise drifted(lock, changes, where=store.uri) from None
    changes = [*_manifest_changes(lock, manifest), *engine]
    if changes:
        raise drifted(lock, changes, where=store.uri)
    return manifest


def check_files(lock: Lock, store: Store, manifest: Manifest, *, level: str) -> None:
    """Check the files of the locked tables: ``quick`` or ``full``, as ``verify`` does.

    Raises:
        SnapshotIncompleteError: A file is missing.
        ChecksumError: A file is not what was pinned.
    """
    tables = {name: manifest.tables[name] for name in lock.tables}
    verify(store, replace(manifest, content={**manifest.content, "tables": tables}), level=level)


def check_answers(lock: Lock, store: Store, manifest: Manifest) -> None:
    """Ask the locked queries again.

    Raises:
        LockDriftError: An answer is not the one that was locked.
    """
    changes = list(_answer_changes(lock, Pinned(store, manifest)))
    if changes:
        raise drifted(lock, changes, where=store.uri)


def answer_drift(lock: Lock, locked: LockedQuery, here: Answer, *, where: str) -> LockDriftError:
    """Return the error for an answer that is not the locked one."""
    names = [name for name, each in lock.queries.items() if each is locked]
    change = _rows_change(f"answer of query {names[0]}", locked.answer, here)
    return drifted(lock, [change], where=where)


def drifted(lock: Lock, changes: list[Change], *, where: str) -> LockDriftError:
    """Return the error that lists what changed."""
    data = any(change.kind == "data" for change in changes)
    remedy = (
        "Name a copy of the lake that has the snapshot with root= or --root, or lock again"
        if data
        else "Install the locked versions, or accept these with allow_engine_drift=True "
        "(--allow-engine-drift)"
    )
    told = "; ".join(str(change) for change in changes)
    return LockDriftError(
        f"The lake at {where} is not what {lock.path or 'the lock'} pins: {told}",
        remedy=remedy,
        changes=[str(change) for change in changes],
        facts=changes,
        snapshot_id=lock.snapshot_id,
        lock_id=lock.lock_id,
    )


def engine_changes(lock: Lock) -> Iterator[Change]:
    """Yield each package whose version differs from the locked one."""
    found = packages()
    for name in sorted({*lock.packages, *found}):
        mine, here = lock.packages.get(name, NOTHING), found.get(name, NOTHING)
        if mine != here:
            yield Change("engine", name, mine, here)


def _manifest_changes(lock: Lock, manifest: Manifest) -> Iterator[Change]:
    for name, locked in lock.tables.items():
        here = locked_table(manifest, name) if name in manifest.tables else None
        yield from _table_changes(name, locked, here)
    sha256 = content_hash(manifest.content)
    if sha256 != lock.manifest_sha256:
        yield Change("data", "manifest", lock.manifest_sha256[:_SHORT], sha256[:_SHORT])


def _table_changes(name: str, locked: LockedTable, here: LockedTable | None) -> Iterator[Change]:
    if here is None:
        yield Change("data", name, f"{locked.rows:,} rows", NOTHING)
        return
    if here.schema_hash != locked.schema_hash:
        short = locked.schema_hash[:_SHORT], here.schema_hash[:_SHORT]
        yield Change("data", f"schema of {name}", *short)
    if here.logical_hash != locked.logical_hash:
        yield _rows_change(name, Answer(locked.rows, locked.logical_hash), here)


def _rows_change(what: str, locked: Answer, here: Answer | LockedTable) -> Change:
    def told(rows: int, logical_hash: str) -> str:
        return f"{rows:,} rows with hash {logical_hash[:_SHORT]}"

    return Change(
        "data",
        what,
        told(locked.rows, locked.logical_hash),
        told(here.rows, here.logical_hash),
    )


def _answer_changes(lock: Lock, source: Source) -> Iterator[Change]:
    for name, locked in lock.queries.items():
        _, here = answer_of(source, locked.query)
        if here != locked.answer:
            yield _rows_change(f"answer of query {name}", locked.answer, here)


def _without_snapshot(lock: Lock, store: Store, clock: Clock) -> Iterator[Change]:
    """Yield that the snapshot is not there, and how the newest state differs from it."""
    info = read_lake(store)
    yield Change("data", "snapshot", lock.snapshot_id, "no such snapshot")
    if info.origin != lock.origin:
        yield Change("data", "origin of the data", lock.origin, info.origin)
    elif info.lake_id != lock.lake_id:
        yield Change("data", "lake", lock.lake_id[:_SHORT], info.lake_id[:_SHORT])
    tables = Tables(store, clock)
    try:
        yield from _head_changes(lock, tables)
        yield from _answer_changes(lock, tables)
    except TidemarkError as error:
        yield Change("data", "newest state", "readable", error.message)


def _head_changes(lock: Lock, tables: Tables) -> Iterator[Change]:
    for name, view in tables.views(list(lock.tables)).items():
        locked = lock.tables[name]
        hashes = [
            entry.row_hash or read_row_hash(tables.store, view.spec, entry) for entry in view.files
        ]
        here = Answer(sum(entry.rows for entry in view.files), combine(hashes))
        if here.logical_hash != locked.logical_hash:
            yield _rows_change(f"newest {name}", Answer(locked.rows, locked.logical_hash), here)
