"""``lake.lock``: what a strategy was built on, in one small file beside it.

The file is JSON with sorted keys, one fact a line, so that a diff of two locks reads well.
It names the snapshot, the tables that were used with their hashes, each query with the hash
of its answer, and the versions of what computed them. ``lock_id`` is the SHA-256 of all the
rest: a lock that was edited by hand is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from contracts.errors import ChecksumError, LakeFormatError, RequestError, TidemarkError
from contracts.names import Timeframe
from contracts.response import canonical_json
from contracts.tables import BAR_REVISIONS, BARS, LEDGER
from contracts.time import iso, parse_time
from lake.manifest import content_hash
from lake.reader import BarsQuery, read_bars
from lake.root import read_lake
from lake.rowhash import frame_hash
from lake.snapshots import code_version
from lake.sources import Pinned
from lake.store import storage_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from contracts.time import Clock
    from lake.manifest import Manifest
    from lake.sources import Source
    from lake.store import Store

FORMAT = 1
NAME = "lake.lock"
ENGINES = ("deltalake", "polars")
_READ_BY_BARS = (BARS.name, BAR_REVISIONS.name, LEDGER.name)
_MADE = "created_at"
_TIMES = ("start", "end", "known_at", "available_at")
_REMEDY = "Take it from version control again, or write it anew with `lake lock --force`"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: its rows, and the hash of them that depends on no file or order."""

    rows: int
    logical_hash: str


@dataclass(frozen=True, slots=True)
class LockedQuery:
    """A question for bars and the answer that it had."""

    query: BarsQuery
    answer: Answer


@dataclass(frozen=True, slots=True)
class LockedTable:
    """A table as the locked snapshot pins it."""

    rows: int
    logical_hash: str
    schema_hash: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A lake.lock.

    Attributes:
        snapshot_id: The snapshot that is read.
        manifest_sha256: SHA-256 of the content of its manifest, of which the id shows the
            beginning only.
        lake_id: The lake that it was made in; a copy elsewhere serves as well.
        origin: Where the data of that lake comes from.
        root: Where that lake is; a relative folder is relative to the lock's own.
        tables: The tables that the queries read; all of the snapshot where there is none.
        queries: Questions by name.
        packages: Versions of what read and hashed the data.
        created_at: When, by the storage clock.
        path: The file it was read from or written to.
    """

    snapshot_id: str
    manifest_sha256: str
    lake_id: str
    origin: str
    root: str
    tables: Mapping[str, LockedTable]
    queries: Mapping[str, LockedQuery]
    packages: Mapping[str, str]
    created_at: str
    path: Path | None = None

    @property
    def lock_id(self) -> str:
        """The SHA-256 of the content."""
        return _hash(_content(self))

    @property
    def where(self) -> str:
        """The root to open: what the lock says, seen from the lock's own folder."""
        if "://" in self.root or self.path is None:
            return self.root
        return os.path.normpath(self.path.absolute().parent / Path(self.root).expanduser())

    def differences(self, other: Lock) -> list[str]:
        """Return the parts in which two locks differ, but for when they were made."""
        mine, others = _content(self), _content(other)
        return sorted(name for name in mine if mine[name] != others[name] and name != _MADE)

    def query(self, name: str | None = None) -> LockedQuery:
        """Return a query; the only one when no name is given.

        Raises:
            RequestError: The lock has no such query, or several and none is named.
        """
        names = ", ".join(self.queries) or "none"
        if name is None and len(self.queries) == 1:
            return next(iter(self.queries.values()))
        if name is None or name not in self.queries:
            asked = "a query that is not named" if name is None else f"query {name!r}"
            raise RequestError(
                f"The lock cannot answer {asked}; its queries: {names}",
                remedy="Name one of them, or lock one with `lake lock --bars`",
            )
        return self.queries[name]

    def to_text(self) -> str:
        """Return the lock as it is written."""
        whole = {**_content(self), "lock_id": self.lock_id}
        return json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def make_lock(
    store: Store,
    manifest: Manifest,
    *,
    root: str,
    queries: Mapping[str, BarsQuery],
    clock: Clock,
) -> Lock:
    """Return the lock of a snapshot and of what some queries read from it.

    Args:
        store: The lake.
        manifest: The snapshot.
        root: Where the lake is, as the lock is to say it; secrets are left out.
        queries: Questions by name; each is asked once, for the hash of its answer.
        clock: Dates the lock.

    Raises:
        RequestError: A query has no rows: nothing would be pinned by it.
        UnknownStreamError: The lake knows no such bars.
    """
    info = read_lake(store)
    source = Pinned(store, manifest)
    used = [name for name in _READ_BY_BARS if name in manifest.tables]
    return Lock(
        snapshot_id=manifest.snapshot_id,
        manifest_sha256=content_hash(manifest.content),
        lake_id=info.lake_id,
        origin=info.origin,
        root=without_secrets(root),
        tables={name: locked_table(manifest, name) for name in used if queries}
        or {name: locked_table(manifest, name) for name in manifest.tables},
        queries={name: _asked(source, query, manifest) for name, query in queries.items()},
        packages=packages(),
        created_at=iso(clock.storage()),
    )


def answer_of(source: Source, query: BarsQuery) -> tuple[pl.DataFrame, Answer]:
    """Ask a query; return the rows and what a lock says of them."""
    rows = read_bars(source, query).collect()
    return rows, Answer(rows.height, frame_hash(rows))


def _asked(source: Source, query: BarsQuery, manifest: Manifest) -> LockedQuery:
    _, answer = answer_of(source, query)
    if answer.rows == 0:
        raise RequestError(
            f"The query for {', '.join(query.instruments)} has no rows in snapshot "
            f"{manifest.snapshot_id}",
            remedy="Ask for a span that the snapshot holds; `lake ledger` shows it",
        )
    return LockedQuery(query, answer)


def locked_table(manifest: Manifest, name: str) -> LockedTable:
    """Return what a lock says of a table of a snapshot."""
    pinned = manifest.tables[name]
    return LockedTable(pinned["rows"], pinned["logical_hash"], _hash(pinned["schema"]))


def packages() -> dict[str, str]:
    """Return the versions that a lock pins; of Python the minor version."""
    engines = {name: version(name) for name in ENGINES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {**engines, "python": python, "tidemark": code_version()}


def without_secrets(root: str) -> str:
    """Return an address without user, password, query and fragment.

    Example:
        >>> without_secrets("s3://key:secret@bucket/prefix?token=1")
        's3://bucket/prefix'
    """
    if "://" not in root:
        return root
    parts = urlsplit(root)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock, whole or not at all.

    Raises:
        StoreUnavailableError: The file cannot be written.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with storage_errors(f"write {path}"):
        try:
            staged.write_text(lock.to_text(), encoding="utf-8", newline="\n")
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)


def read_lock(path: str | Path) -> Lock:
    """Return the lock that a file holds.

    Raises:
        RequestError: There is no such file.
        ChecksumError: It is not what `lake lock` wrote.
        LakeFormatError: It was written by a newer Tidemark.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise RequestError(
            f"There is no lock at {file}",
            remedy="Write one with `lake lock --snapshot ID --bars INSTRUMENT --timeframe 1h`",
            path=str(file),
        )
    with storage_errors(f"read {file}"):
        content = file.read_bytes()
    told = _json(file, content)
    form = told.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise LakeFormatError(
            f"{file} has format {form}; this Tidemark knows {FORMAT}", remedy="Upgrade Tidemark"
        )
    lock_id = told.pop("lock_id", None)
    try:
        honest = _hash(told) == lock_id
        lock = _parsed(told, file) if honest else None
    except (KeyError, TypeError, ValueError, AttributeError, TidemarkError):
        raise _edited(file, "is not a lock of this format") from None
    if lock is None:
        raise _edited(file, "was edited: its content no longer hashes to its lock_id")
    if lock.lock_id != lock_id:
        raise _edited(file, "is not a lock of this format")
    return lock


def _json(file: Path, content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise _edited(file, "is not a lock: it is not the JSON that was written")
    return told


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: one of its values would be hidden from the hash."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _edited(file: Path, why: str) -> ChecksumError:
    return ChecksumError(f"{file} {why}", remedy=_REMEDY, path=str(file))


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _content(lock: Lock) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "snapshot_id": lock.snapshot_id,
        "manifest_sha256": lock.manifest_sha256,
        "lake": {"lake_id": lock.lake_id, "origin": lock.origin, "root": lock.root},
        "tables": {name: _plain(told) for name, told in lock.tables.items()},
        "queries": {name: _query_json(told) for name, told in lock.queries.items()},
        "packages": dict(lock.packages),
        _MADE: lock.created_at,
    }


def _plain(told: LockedTable | Answer) -> dict[str, Any]:
    return {field.name: getattr(told, field.name) for field in fields(told)}


def _query_json(locked: LockedQuery) -> dict[str, Any]:
    query = locked.query
    times = {name: getattr(query, name) for name in _TIMES}
    return {
        "instruments": list(query.instruments),
        "timeframe": query.timeframe.code,
        "columns": None if query.columns is None else list(query.columns),
        **{name: None if moment is None else iso(moment) for name, moment in times.items()},
        "answer": _plain(locked.answer),
    }


def _parsed(told: Mapping[str, Any], path: Path) -> Lock:
    return Lock(
        snapshot_id=told["snapshot_id"],
        manifest_sha256=told["manifest_sha256"],
        lake_id=told["lake"]["lake_id"],
        origin=told["lake"]["origin"],
        root=told["lake"]["root"],
        tables={name: LockedTable(**each) for name, each in told["tables"].items()},
        queries={name: _parsed_query(each) for name, each in told["queries"].items()},
        packages=told["packages"],
        created_at=told["created_at"],
        path=path,
    )


def _parsed_query(told: Mapping[str, Any]) -> LockedQuery:
    times = {name: None if told[name] is None else parse_time(told[name]) for name in _TIMES}
    query = BarsQuery(
        instruments=tuple(told["instruments"]),
        timeframe=Timeframe.parse(told["timeframe"]),
        columns=None if told["columns"] is None else tuple(told["columns"]),
        **times,
    )
    return LockedQuery(query, Answer(**told["answer"]))
