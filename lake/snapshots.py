"""Pin every table to one immutable ``snapshot_id``.

A snapshot copies no data and reads no row of it: the manifest lists the files that the
Delta logs name, with what the files' footers and names say of them. The order of steps is
what makes it hold: a lease first, versions in the reverse order of the path, every file
looked up, the manifest put with create-if-absent, every file looked up again, the lease
dropped.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from contracts.errors import (
    CommitConflictError,
    InvariantError,
    RequestError,
    SnapshotIncompleteError,
    StorageError,
)
from contracts.tables import TABLES, table
from contracts.time import iso
from lake.labels import check_label, set_label
from lake.leases import GRACE, lease
from lake.manifest import (
    NO_MEMBERS,
    Draft,
    Manifest,
    content_hash,
    load_manifest,
    manifest_path,
)
from lake.parts import read_row_hash
from lake.pinlog import PinState, add_event, is_pinned, pin_state
from lake.root import read_lake
from lake.rowhash import combine
from lake.who import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lake.inventory import Inventory
    from lake.sources import Tables
    from lake.store import Store

MEMBERS = tuple(name for name in TABLES if name not in NO_MEMBERS)
_THREADS = 8
_HASH_DIGITS = (8, 12, 16, 64)


def create_snapshot(
    tables: Tables, *, label: str | None = None, members: Sequence[str] | None = None
) -> Manifest:
    """Pin the current state of all tables; the same state gives the same snapshot.

    Args:
        tables: The lake's tables.
        label: A label that moves to the snapshot, be it new or not.
        members: The only tables to pin; all when None.

    Raises:
        RequestError: The lake holds nothing yet, or a wrong label or member.
        UnknownTableError: A member is no table.
        SnapshotIncompleteError: A file that a log names is not there.
    """
    store, clock = tables.store, tables.clock
    info = read_lake(store)
    if label is not None:
        check_label(label)
    names = _checked_members(members)
    with lease(store, clock, "snapshot", GRACE) as check_lease:
        held = tables.inventories(names)
        if all(each.files.is_empty() for each in held.values()):
            raise RequestError(
                f"The lake at {store.uri} holds nothing yet",
                remedy="Fill it first, for instance with `lake backfill`",
            )
        _check_files(store, held)
        draft = _draft(store, held, names)
        beside = {
            "created_at": iso(clock.storage()),
            "created_by": user_name(),
            "lake_id": info.lake_id,
            "origin": info.origin,
            "engines": dict(_engines()),
        }
        check_lease()
        manifest, made = _put(store, draft, _date(held), beside)
        made |= _keep(tables, manifest.snapshot_id)
        try:
            _check_files(store, held)
        except StorageError:
            if made:
                why = "a file was lost while it was made"
                add_event(store, clock, manifest.snapshot_id, PinState.UNPINNED, why=why)
            raise
    if label is not None:
        set_label(store, clock, label, manifest.snapshot_id)
    return manifest


def _checked_members(members: Sequence[str] | None) -> tuple[str, ...]:
    if members is None:
        return MEMBERS
    asked = {table(name).name for name in members}
    outside = sorted(asked & NO_MEMBERS)
    if outside or not asked:
        why = f"{outside[0]} is no part of the data" if outside else "No table was named"
        raise RequestError(why, remedy=f"Choose among {', '.join(MEMBERS)}")
    return tuple(name for name in MEMBERS if name in asked)


def _keep(tables: Tables, snapshot_id: str) -> bool:
    """Pin a snapshot again that was there before; tell whether it had been given up."""
    store = tables.store
    before = pin_state(store, snapshot_id)
    if before is PinState.PINNED:
        return False
    try:
        add_event(store, tables.clock, snapshot_id, PinState.PINNED, why="created again")
    except CommitConflictError:
        if not is_pinned(store, snapshot_id):
            raise
        return False
    return not before.keeps


def _put(store: Store, draft: Draft, date: str, beside: Mapping[str, Any]) -> tuple[Manifest, bool]:
    """Put the manifest unless it is there; tell whether it was put."""
    for digits in _HASH_DIGITS:
        snapshot_id = f"{date}-{draft.hash[:digits]}"
        data = draft.to_json(snapshot_id, beside)
        if store.create(manifest_path(snapshot_id), data):
            return Manifest(snapshot_id, json.loads(data)["content"], beside), True
        found = load_manifest(store, snapshot_id)
        if content_hash(found.content) == draft.hash:
            return found, False
    raise InvariantError("two contents of one SHA-256")


def _draft(store: Store, held: Mapping[str, Inventory], members: Sequence[str]) -> Draft:
    tables: dict[str, Any] = {}
    files: dict[str, list[str]] = {}
    for name, inventory in sorted(held.items()):
        hashes = _row_hashes(store, inventory)
        tables[name] = _table(inventory, combine(hashes))
        files[name] = inventory.to_json(hashes)
    content = {
        "tables": tables,
        "contracts": {name: each.spec.version for name, each in sorted(held.items())},
        "code": {"tidemark": code_version()},
    }
    partial = {} if members == MEMBERS else {"members": sorted(members)}
    return Draft(content | partial, files)


def _table(held: Inventory, logical_hash: str) -> dict[str, Any]:
    return {
        "path": held.spec.path,
        "version": held.version,
        "schema": {name: str(dtype) for name, dtype in held.spec.schema.items()},
        "rows": held.rows,
        "key_range": held.key_range(),
        "logical_hash": logical_hash,
    }


def _row_hashes(store: Store, held: Inventory) -> list[str]:
    """Return the row hash of each file: as its name tells it, or else its footer."""
    with ThreadPoolExecutor(_THREADS) as pool:
        bare = held.without_row_hash()
        read = pool.map(lambda entry: read_row_hash(store, held.spec, entry), bare)
        return [told or next(read) for told in held.row_hashes]


def _check_files(store: Store, held: Mapping[str, Inventory]) -> None:
    """Check that every file is there, with its size."""
    for each in held.values():
        paths, told = each.paths, each.files["size"].to_list()
        sizes = store.sizes_of(paths, below=each.spec.path)
        for path, size, expected in zip(paths, sizes, told, strict=True):
            if size != expected:
                why = "is missing" if size is None else f"has {size} bytes, not {expected}"
                raise SnapshotIncompleteError(
                    f"{store.uri_of(path)} {why}: nothing was pinned that can be relied on",
                    remedy="Restore the file from a copy, then create the snapshot again",
                    path=path,
                )


def _date(held: Mapping[str, Inventory]) -> str:
    moments = [each.newest(each.spec.known) for each in held.values()]
    newest = max(moment for moment in moments if moment is not None)
    return f"{newest:%Y-%m-%d}"


@cache
def _engines() -> tuple[tuple[str, str], ...]:
    return tuple((name, version(name)) for name in ("polars", "deltalake"))


@cache
def code_version() -> str:
    """Return the version of Tidemark that runs."""
    try:
        return version("tidemark")
    except PackageNotFoundError:
        return "0"
