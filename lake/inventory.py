"""What a version of a table names, in columns: a snapshot pins thousands of files at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import InvariantError
from contracts.time import iso
from lake.parts import FileEntry, claims

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from contracts.spec import TableSpec

_ENTRY = ("path", "size", "rows")


@dataclass(frozen=True)
class Inventory:
    """The files of one version of a table.

    Attributes:
        spec: The table.
        version: The version.
        files: A row for each file, sorted by path: ``path``, ``size`` (bytes), ``rows``, its
            partition's values and the bounds of its statistics columns, null where unknown.
    """

    spec: TableSpec
    version: int
    files: pl.DataFrame

    @classmethod
    def of(cls, spec: TableSpec, version: int, actions: pl.DataFrame) -> Inventory:
        """Return what the flattened add actions of a Delta table say."""
        names = {"path": "path", "size_bytes": "size", "num_records": "rows"}
        names |= {f"partition.{name}": f"partition.{name}" for name in spec.partition_by}
        for told, kept in (("min", "low"), ("max", "high")):
            names |= {f"{told}.{name}": f"{kept}.{name}" for name in spec.statistics_columns}
        columns = [
            (pl.col(told) if told in actions.columns else pl.lit(None)).alias(kept)
            for told, kept in names.items()
        ]
        return cls(spec, version, actions.select(columns).sort("path"))

    @property
    def paths(self) -> list[str]:
        """The files' paths below the lake's root."""
        return [f"{self.spec.path}/{path}" for path in self.files["path"]]

    @property
    def rows(self) -> int:
        """The number of rows.

        Raises:
            InvariantError: The log does not tell it of every file.
        """
        if self.files["rows"].null_count():
            raise InvariantError(f"{self.spec.name}: a file of an unknown number of rows")
        return int(self.files["rows"].sum())

    def entries(self) -> Iterator[FileEntry]:
        """Return an object for each file."""
        keys, names = self.spec.partition_by, self.spec.statistics_columns
        columns = [self.files[name].to_list() for name in self.files.columns]
        first, last = len(_ENTRY) + len(keys), len(_ENTRY) + len(keys) + len(names)
        for row in zip(*columns, strict=True):
            path, size, rows = row[: len(_ENTRY)]
            partition = dict(zip(keys, row[len(_ENTRY) : first], strict=True))
            low = dict(zip(names, row[first:last], strict=True))
            high = dict(zip(names, row[last:], strict=True))
            yield FileEntry(path, size, rows, partition, low, high)

    @cached_property
    def _claims(self) -> list[tuple[str, str | None]]:
        return list(map(claims, self.files["path"]))

    @property
    def row_hashes(self) -> list[str | None]:
        """The row hash that each file's name claims; None where it claims none."""
        return [row_hash for _, row_hash in self._claims]

    def without_row_hash(self) -> list[FileEntry]:
        """Return the files whose names claim no row hash."""
        bare = pl.Series([row_hash is None for row_hash in self.row_hashes], dtype=pl.Boolean)
        return list(replace(self, files=self.files.filter(bare)).entries())

    def newest(self, column: str) -> datetime | None:
        """Return the greatest bound of a column of times, as far as one is known."""
        bounds = self.files[f"high.{column}"]
        return bounds.max() if bounds.dtype == pl.Datetime else None  # type: ignore[return-value]

    def key_range(self) -> dict[str, list[Any]]:
        """Return the least and the greatest value of each column of the key, where known."""
        ranges: dict[str, list[Any]] = {}
        for name in self.spec.key:
            kinds = ("partition",) if name in self.spec.partition_by else ("low", "high")
            told = (f"{kind}.{name}" for kind in kinds)
            bounds = [self.files[column] for column in told if column in self.files.columns]
            low, high = ([getattr(each, end)() for each in bounds] for end in ("min", "max"))
            known = [value for value in (*low, *high) if value is not None]
            if known:
                ends = [min(known), max(known)]
                ranges[name] = [iso(end) if hasattr(end, "astimezone") else end for end in ends]
        return ranges

    def to_json(self, row_hashes: Sequence[str]) -> list[str]:
        """Return each file as a manifest states it, in canonical JSON."""
        spec = self.spec
        bounds = {kind: self._object(kind, spec.statistics_columns) for kind in ("high", "low")}
        rest = pl.struct("path", "row_hash", "rows", "sha256", "size").struct.json_encode()
        text = pl.concat_str(
            pl.lit('{"high":'), bounds["high"],
            pl.lit(',"low":'), bounds["low"],
            pl.lit(',"partition":'), self._object("partition", spec.partition_by),
            pl.lit(","), rest.str.strip_prefix("{"),
        )  # fmt: skip
        hashes = [
            pl.Series("row_hash", row_hashes, dtype=pl.String),
            pl.Series("sha256", [sha256 for sha256, _ in self._claims], dtype=pl.String),
        ]
        return self.files.with_columns(hashes).select(text.alias("text"))["text"].to_list()

    def _object(self, kind: str, names: Sequence[str]) -> pl.Expr:
        if not names:
            return pl.lit("{}")
        return pl.struct(self._member(kind, name) for name in sorted(names)).struct.json_encode()

    def _member(self, kind: str, name: str) -> pl.Expr:
        column, dtype = pl.col(f"{kind}.{name}"), self.files.schema[f"{kind}.{name}"]
        if isinstance(dtype, pl.Datetime):
            whole = column.dt.microsecond() == 0
            told = pl.when(whole).then(column.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
            column = told.otherwise(column.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        elif not (dtype.is_integer() or dtype in (pl.String, pl.Null)):
            raise InvariantError(f"{self.spec.name}: {name} is {dtype}, which no manifest states")
        return column.alias(name)
