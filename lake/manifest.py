"""A snapshot's manifest: one immutable JSON that names every file of every table."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import (
    ChecksumError,
    InvalidTimeError,
    LakeFormatError,
    TableNotPinnedError,
    UnknownSnapshotError,
)
from contracts.names import suggest
from contracts.response import canonical_json
from contracts.tables import TABLES, table
from contracts.time import parse_time
from lake.parts import FileEntry
from lake.tables import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from lake.store import Store

# A manifest that leaves tables out on purpose has format 2, so that a Tidemark which would
# take them for empty refuses it; any other has format 1.
FORMAT = 2
_WHOLE, _PARTIAL = 1, 2
FOLDER = "snapshots"
# What the lake says of its own runs and clean-ups is no part of the data.
NO_MEMBERS = frozenset({"ops.runs", "ops.deletions"})
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_BESIDE_HASH = "beside_sha256"
_BESIDE: Mapping[str, type] = {
    "created_at": str,
    "created_by": str,
    "lake_id": str,
    "origin": str,
    "engines": dict,
}


@dataclass(frozen=True)
class Manifest:
    """A snapshot.

    Attributes:
        snapshot_id: ``date-hash`` of the content.
        content: What the id is a hash of: tables with version, schema, rows, key range,
            files and logical hash; contract and code versions;
            ``members`` where only some tables were to be pinned.
        beside: What stands outside the hash: created_at, created_by, lake_id, origin.
    """

    snapshot_id: str
    content: Mapping[str, Any]
    beside: Mapping[str, Any]

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        """The pinned tables by name."""
        return self.content["tables"]  # type: ignore[no-any-return]

    @property
    def files(self) -> dict[str, int]:
        """All data files, below the lake's root, with their sizes."""
        return {
            f"{pinned['path']}/{told['path']}": told["size"]
            for pinned in self.tables.values()
            for told in pinned["files"]
        }

    def view(self, name: str) -> View:
        """Return a table as it is pinned; one that did not exist then has no rows.

        Raises:
            UnknownTableError: No such table.
            TableNotPinnedError: The snapshot was not to pin this table.
        """
        spec = table(name)
        pinned = self.tables.get(name)
        if pinned is None:
            self._check_member(name)
            return View(spec, -1, ())
        return View(spec, pinned["version"], tuple(_entry(name, told) for told in pinned["files"]))

    def _check_member(self, name: str) -> None:
        members = self.content.get("members")
        if name in NO_MEMBERS or (members is not None and name not in members):
            told = ", ".join(self.tables)
            raise TableNotPinnedError(
                f"Snapshot {self.snapshot_id} does not pin {name}",
                remedy=f"Read it at the heads, or at a snapshot that pins it; this has {told}",
                snapshot_id=self.snapshot_id,
                table=name,
            )

    def to_json(self) -> bytes:
        """Return the manifest as it is stored: a line for each file of each table."""
        files = {
            name: [canonical_json(told) for told in pinned["files"]]
            for name, pinned in self.tables.items()
        }
        return Draft(self.content, files).to_json(self.snapshot_id, self.beside)


@dataclass(frozen=True)
class Draft:
    """What a manifest will hold, rendered once: snapshots name thousands of files.

    Attributes:
        content: As a manifest's; what its tables say of files is not looked at.
        files: The files of each table, in canonical JSON.
    """

    content: Mapping[str, Any]
    files: Mapping[str, Sequence[str]]

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the content: ``content_hash`` of what the manifest will hold."""
        return _sha256(self._spliced(canonical_json(self._outline), '"files":[]', ","))

    def to_json(self, snapshot_id: str, beside: Mapping[str, Any]) -> bytes:
        """Return the manifest as it is stored: a line for each file of each table."""
        whole = {
            "format": _format_of(self.content),
            "snapshot_id": snapshot_id,
            "content": self._outline,
            **beside,
            _BESIDE_HASH: content_hash(beside),
        }
        outline = json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True)
        return self._spliced(outline, '"files": []', ",\n    ").encode()

    @cached_property
    def _outline(self) -> dict[str, Any]:
        tables = {name: {**told, "files": []} for name, told in self.content["tables"].items()}
        return {**self.content, "tables": tables}

    def _spliced(self, outline: str, empty: str, between: str) -> str:
        """Put the files into their places.

        No text in JSON can hold the quotes of ``empty`` unescaped, so each is a table's place.
        """
        first, *rest = outline.split(empty)
        text = [first]
        for (_, files), more in zip(sorted(self.files.items()), rest, strict=True):
            text += [empty[:-1], between.join(files), "]", more]
        return "".join(text)


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, or of what stands beside it."""
    return _sha256(canonical_json(content))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_path(snapshot_id: str) -> str:
    """Return where a manifest lies below the lake's root."""
    return f"{FOLDER}/{snapshot_id}.json"


def snapshot_ids(store: Store) -> list[str]:
    """Return the ids of all snapshots of a lake, in order."""
    names = (path.rpartition("/")[2] for path in store.sizes(FOLDER))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def load_manifest(store: Store, snapshot_id: str) -> Manifest:
    """Return a snapshot's manifest.

    Raises:
        UnknownSnapshotError: No such snapshot; the nearest ids are offered.
        ChecksumError: The manifest is not the one that the id was given for.
        LakeFormatError: It was written by a newer Tidemark.
    """
    found = find_manifest(store, snapshot_id)
    if found is None:
        raise UnknownSnapshotError(
            f"There is no snapshot {snapshot_id!r} in {store.uri}",
            remedy=suggest(snapshot_id, snapshot_ids(store)[::-1]),
            snapshot_id=snapshot_id,
        )
    return found


def find_manifest(store: Store, snapshot_id: str) -> Manifest | None:
    """Return a snapshot's manifest, or None where there is none of that id.

    Raises:
        ChecksumError: The manifest is not the one that the id was given for.
        LakeFormatError: It was written by a newer Tidemark.
    """
    content = None
    if _NAME.fullmatch(snapshot_id):
        content = store.get(manifest_path(snapshot_id))
    return None if content is None else read_manifest(store, snapshot_id, content)


def read_manifest(store: Store, snapshot_id: str, content: bytes) -> Manifest:
    """Return the manifest that the bytes of its object are, as ``find_manifest`` does."""
    try:
        told = json.loads(content)
        _check_format(snapshot_id, told["format"])
        beside = _beside(told)
        manifest = Manifest(told["snapshot_id"], told["content"], beside)
        claimed = manifest.snapshot_id.rpartition("-")[2]
    except (ValueError, KeyError, TypeError, AttributeError, InvalidTimeError):
        raise _tampered(store, snapshot_id) from None
    honest = bool(claimed) and content_hash(manifest.content).startswith(claimed)
    in_place = manifest.snapshot_id == snapshot_id and told["format"] == _format_of(told["content"])
    if not (honest and in_place):
        raise _tampered(store, snapshot_id)
    return manifest


def _beside(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands beside the content; older manifests carry no hash of it.

    Raises:
        KeyError: Something is missing.
        ValueError: It is not what was written.
    """
    own = ("format", "snapshot_id", "content", _BESIDE_HASH)
    beside = {key: told[key] for key in told if key not in own}
    for key, kind in _BESIDE.items():
        if not isinstance(beside[key], kind):
            raise ValueError(key)  # noqa: TRY004 - read_manifest tells it
    parse_time(beside["created_at"])
    if _BESIDE_HASH in told and told[_BESIDE_HASH] != content_hash(beside):
        raise ValueError(_BESIDE_HASH)
    return beside


def _format_of(content: Mapping[str, Any]) -> int:
    return _PARTIAL if "members" in content else _WHOLE


def _check_format(snapshot_id: str, told: int) -> None:
    if told > FORMAT:
        raise LakeFormatError(
            f"Snapshot {snapshot_id} has format {told}; this Tidemark knows {FORMAT}",
            remedy="Upgrade Tidemark",
            snapshot_id=snapshot_id,
        )


def _tampered(store: Store, snapshot_id: str) -> ChecksumError:
    path = manifest_path(snapshot_id)
    return ChecksumError(
        f"{store.uri_of(path)} is not the manifest that was written",
        remedy="Restore it from a copy; what it says no longer hashes to what was written",
        path=path,
    )


def _entry(name: str, told: Mapping[str, Any]) -> FileEntry:
    return FileEntry(
        path=told["path"],
        size=told["size"],
        rows=told["rows"],
        partition=told["partition"],
        low=_bounds(name, told["low"]),
        high=_bounds(name, told["high"]),
    )


def _bounds(name: str, told: Mapping[str, Any]) -> dict[str, str | int | datetime | date | None]:
    columns = TABLES[name].by_name
    return {
        column: parse_time(value)
        if value is not None and isinstance(columns[column].dtype, pl.Datetime)
        else value
        for column, value in told.items()
        if column in columns
    }
