"""Data files: how a frame becomes a Parquet file, and what is said of the file.

A file is named ``part-<sha256 of its bytes>-<row hash>.parquet`` below its partition's folder;
the additive row hash of its rows stands in its footer too. So a Delta log alone tells what a
file must hold, and a snapshot need not read one. ``FileEntry`` is what a Delta log or a manifest
says of a file: enough to decide whether to read it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import ChecksumError, InvariantError
from lake.rowhash import frame_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.spec import TableSpec
    from lake.store import Store

ROW_HASH_KEY = "tidemark.row_hash"
SPEC_VERSION_KEY = "tidemark.contract"
_PARTITION_VALUE = re.compile(r"[A-Za-z0-9._-]+")
_FOOTER_GUESS = 64 << 10
_MILLISECOND = timedelta(milliseconds=1)

Bound = str | int | datetime | date | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What is said of one data file.

    Attributes:
        path: Below the table's folder.
        size: Bytes.
        rows: Number of rows.
        partition: Partition values by column, as they are typed in the table.
        low: Least value of each statistics column; times rounded down to milliseconds.
        high: Greatest value; times rounded up.
    """

    path: str
    size: int
    rows: int
    partition: Mapping[str, Any]
    low: Mapping[str, Bound] = field(hash=False)
    high: Mapping[str, Bound] = field(hash=False)

    @property
    def sha256(self) -> str:
        """The hash of its bytes that the file's name claims."""
        return claims(self.path)[0]

    @property
    def row_hash(self) -> str | None:
        """The row hash that the file's name claims; None where it claims none."""
        return claims(self.path)[1]

    def may_hold(self, column: str, low: Any, high: Any) -> bool:
        """Tell whether values of ``column`` in ``[low, high]`` may stand in the file."""
        least, greatest = self.low.get(column), self.high.get(column)
        if least is None or greatest is None:
            return True
        return bool(least <= high and greatest >= low)


def claims(path: str) -> tuple[str, str | None]:
    """Return the SHA-256 and the row hash that a file's name claims; None where it has none."""
    name = path.rpartition("part-")[2].removesuffix(".parquet")
    sha256, _, row_hash = name.partition("-")
    return sha256, row_hash or None


@dataclass(frozen=True, slots=True)
class Part:
    """A data file that has been written, and what the commit says of it."""

    entry: FileEntry
    stats: str


def write_part(store: Store, spec: TableSpec, frame: pl.DataFrame) -> Part:
    """Write the rows of one partition as one file.

    Args:
        store: Where.
        spec: The table; ``frame`` has exactly its schema.
        frame: Rows of one partition, sorted as the table is.
    """
    partition = partition_of(spec, frame)
    data = frame.select(spec.file_schema.names())
    row_hash = frame_hash(frame, bulky=spec.bulky_columns)
    buffer = io.BytesIO()
    data.write_parquet(
        buffer,
        compression=spec.compression,  # type: ignore[arg-type]
        row_group_size=spec.row_group_rows,
        statistics=True,
        compression_level=spec.compression_level,
        metadata={
            ROW_HASH_KEY: row_hash,
            SPEC_VERSION_KEY: f"{spec.name}/{spec.version}",
        },
    )
    content = buffer.getbuffer()
    sha256 = hashlib.sha256(content).hexdigest()
    folder = "".join(f"{name}={value}/" for name, value in partition.items())
    path = f"{folder}part-{sha256}-{row_hash}.parquet"
    store.put(f"{spec.path}/{path}", content)
    low, high, nulls = _bounds(spec, data)
    entry = FileEntry(path, len(content), frame.height, partition, low, high)
    return Part(entry, _stats(frame.height, low, high, nulls))


def partition_of(spec: TableSpec, frame: pl.DataFrame) -> dict[str, Any]:
    """Return the partition values that all rows of ``frame`` share."""
    values: dict[str, Any] = {}
    for name in spec.partition_by:
        column = frame[name]
        value = column[0]
        if column.null_count() or not (column == value).all():
            raise InvariantError(f"{spec.name}: a file of several partitions of {name}")
        if not _PARTITION_VALUE.fullmatch(str(value)):
            raise InvariantError(f"{spec.name}: {name}={value!r} cannot be a folder's name")
        values[name] = value
    return values


def read_row_hash(store: Store, spec: TableSpec, entry: FileEntry) -> str:
    """Return the row hash that a file's footer carries.

    Raises:
        ChecksumError: The footer is unreadable or carries no row hash.
    """
    path = f"{spec.path}/{entry.path}"
    try:
        return pl.read_parquet_metadata(read_footer(store, path, entry.size))[ROW_HASH_KEY]
    except (pl.exceptions.PolarsError, KeyError) as error:
        raise ChecksumError(
            f"The footer of {store.uri_of(path)} cannot be read",
            remedy="Run `lake snapshot verify`; restore the file from a copy",
            path=path,
        ) from error


def read_footer(store: Store, path: str, size: int) -> io.BytesIO:
    """Return the end of a Parquet file of ``size`` bytes, its footer included."""
    tail = store.tail(path, size, _FOOTER_GUESS)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    return io.BytesIO(tail if length <= len(tail) else store.tail(path, size, length))


def _bounds(
    spec: TableSpec, data: pl.DataFrame
) -> tuple[dict[str, Bound], dict[str, Bound], dict[str, int]]:
    names = spec.statistics_columns
    found = data.select(
        *(pl.col(name).min().alias(f"low {name}") for name in names),
        *(pl.col(name).max().alias(f"high {name}") for name in names),
        *(pl.col(name).null_count().alias(f"null {name}") for name in names),
    ).row(0, named=True)
    low = {name: _rounded(found[f"low {name}"], up=False) for name in names}
    high = {name: _rounded(found[f"high {name}"], up=True) for name in names}
    return low, high, {name: found[f"null {name}"] for name in names}


def _rounded(value: Any, *, up: bool) -> Bound:
    if not isinstance(value, datetime):
        return value  # type: ignore[no-any-return]
    floor = value - timedelta(microseconds=value.microsecond % 1000)
    return floor + _MILLISECOND if up and floor != value else floor


def _stats(
    rows: int, low: Mapping[str, Bound], high: Mapping[str, Bound], nulls: Mapping[str, int]
) -> str:
    def rendered(bounds: Mapping[str, Bound]) -> dict[str, Any]:
        return {name: _json_bound(value) for name, value in bounds.items() if value is not None}

    return json.dumps(
        {
            "numRecords": rows,
            "minValues": rendered(low),
            "maxValues": rendered(high),
            "nullCount": dict(nulls),
        },
        ensure_ascii=False,
    )


def _json_bound(value: Bound) -> str | int:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    return value.isoformat() if isinstance(value, date) else value  # type: ignore[return-value]
