"""Pin every table to one immutable ``snapshot_id``.

A snapshot copies no data and reads no row of it: the manifest lists the files that the
Delta logs name, with what the files' footers and names say of them. The order of steps is
what makes it hold: a lease first, versions in the reverse order of the path, every file
looked up, the manifest put with create-if-absent, every file looked up again, the lease
dropped.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from contracts.errors import (
    CommitConflictError,
    InvariantError,
    RequestError,
    SnapshotIncompleteError,
)
from contracts.tables import TABLES, table
from contracts.time import iso
from lake.knowledge import newest_knowledge
from lake.labels import check_label, set_label
from lake.leases import GRACE, lease
from lake.manifest import (
    NO_MEMBERS,
    Manifest,
    content_hash,
    load_manifest,
    manifest_path,
)
from lake.parts import entry_json, read_row_hash
from lake.pinlog import PinState, add_event, is_pinned, pin_state
from lake.root import read_lake
from lake.rowhash import combine
from lake.who import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lake.sources import Tables
    from lake.store import Store
    from lake.tables import View

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
        views = {name: view for name, view in tables.views(names).items() if view.version >= 0}
        if not any(view.files for view in views.values()):
            raise RequestError(
                f"The lake at {store.uri} holds nothing yet",
                remedy="Fill it first, for instance with `lake backfill`",
            )
        _check_files(store, views)
        content = _content(store, views)
        if names != MEMBERS:
            content["members"] = sorted(names)
        beside = {
            "created_at": iso(clock.storage()),
            "created_by": user_name(),
            "lake_id": info.lake_id,
            "origin": info.origin,
            "engines": dict(_engines()),
        }
        check_lease()
        manifest = _put(store, content, _date(views), beside)
        _keep(tables, manifest.snapshot_id)
        _check_files(store, views)
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


def _keep(tables: Tables, snapshot_id: str) -> None:
    """Pin a snapshot again that was there before and given up meanwhile."""
    store = tables.store
    if pin_state(store, snapshot_id) is PinState.PINNED:
        return
    try:
        add_event(store, tables.clock, snapshot_id, PinState.PINNED, why="created again")
    except CommitConflictError:
        if not is_pinned(store, snapshot_id):
            raise


def _put(
    store: Store, content: Mapping[str, Any], date: str, beside: Mapping[str, Any]
) -> Manifest:
    digest = content_hash(content)
    for digits in _HASH_DIGITS:
        snapshot_id = f"{date}-{digest[:digits]}"
        manifest = Manifest(snapshot_id, content, beside)
        if store.create(manifest_path(snapshot_id), manifest.to_json()):
            return manifest
        found = load_manifest(store, snapshot_id)
        if content_hash(found.content) == digest:
            return found
    raise InvariantError("two contents of one SHA-256")


def _content(store: Store, views: Mapping[str, View]) -> dict[str, Any]:
    return {
        "tables": {name: _table(store, view) for name, view in sorted(views.items())},
        "contracts": {name: view.spec.version for name, view in sorted(views.items())},
        "code": {"tidemark": code_version()},
    }


def _table(store: Store, view: View) -> dict[str, Any]:
    spec = view.spec
    hashes = _row_hashes(store, view)
    files = [
        {**entry_json(entry), "row_hash": row_hash}
        for entry, row_hash in zip(view.files, hashes, strict=True)
    ]
    return {
        "path": spec.path,
        "version": view.version,
        "schema": {name: str(dtype) for name, dtype in spec.schema.items()},
        "rows": sum(entry.rows for entry in view.files),
        "key_range": _key_range(view),
        "files": files,
        "logical_hash": combine(hashes),
    }


def _row_hashes(store: Store, view: View) -> list[str]:
    """Return the row hash of each file: as its name tells it, or else its footer."""
    with ThreadPoolExecutor(_THREADS) as pool:
        told = (
            entry.row_hash or pool.submit(read_row_hash, store, view.spec, entry)
            for entry in view.files
        )
        return [each if isinstance(each, str) else each.result() for each in list(told)]


def _key_range(view: View) -> dict[str, list[Any]]:
    ranges: dict[str, list[Any]] = {}
    for name in view.spec.key:
        if name in view.spec.partition_by:
            values: list[Any] = [entry.partition[name] for entry in view.files]
        else:
            values = [entry.low.get(name) for entry in view.files]
            values += [entry.high.get(name) for entry in view.files]
        known = [value for value in values if value is not None]
        if known:
            ends = [min(known), max(known)]
            ranges[name] = [iso(end) if hasattr(end, "astimezone") else end for end in ends]
    return ranges


def _check_files(store: Store, views: Mapping[str, View]) -> None:
    """Check that every file is there, with its size."""
    for view in views.values():
        paths = [f"{view.spec.path}/{entry.path}" for entry in view.files]
        sizes = store.sizes_of(paths, below=view.spec.path)
        for path, size, entry in zip(paths, sizes, view.files, strict=True):
            if size != entry.size:
                why = "is missing" if size is None else f"has {size} bytes, not {entry.size}"
                raise SnapshotIncompleteError(
                    f"{store.uri_of(path)} {why}: nothing was pinned that can be relied on",
                    remedy="Restore the file from a copy, then create the snapshot again",
                    path=path,
                )


def _date(views: Mapping[str, View]) -> str:
    moments = [newest_knowledge(view) for view in views.values()]
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
