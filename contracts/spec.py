"""``TableSpec``: one declaration of a table, from which everything else is derived.

Column types, DDL, the data dictionary, write checks, statistics, the Pandera model and
what the SDK returns all come from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import ContractError, InvariantError
from contracts.time import to_micros

if TYPE_CHECKING:
    from datetime import datetime

Time = pl.Datetime("us", "UTC")
Rule = pl.Decimal(38, 18)


def time_lit(value: datetime) -> pl.Expr:
    """Return a time as an expression; thirty times as fast as ``pl.lit`` of a datetime."""
    return pl.lit(to_micros(value), pl.Int64).cast(Time)


_STATISTICS_TYPES = (pl.String, pl.Datetime, pl.Int32, pl.Int64, pl.Date, pl.Boolean)


class Layer(StrEnum):
    """Where a table stands on the path of the data."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: type, meaning, unit, and how the writer treats it.

    Attributes:
        name: The column's name; never ``interval``, which breaks delta-rs predicates.
        dtype: The exact Polars type.
        meaning: What a value says, one sentence.
        unit: Unit of the value where the type does not carry it.
        nullable: Whether a null is allowed, and then what it means is in ``meaning``.
        statistics: Whether files carry minimum, maximum and null count of it. Never set
            on floats and decimals: their statistics lie.
        value: Whether the column is part of what the row asserts; rows are compared on
            value columns alone.
        bulky: A long text whose SHA-256 stands in another column: the row hash counts its
            length alone.
    """

    name: str
    dtype: pl.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    statistics: bool = False
    value: bool = False
    bulky: bool = False

    def __post_init__(self) -> None:
        if self.name == "interval":
            msg = "a column named interval breaks delta-rs predicates"
            raise InvariantError(msg, remedy="Call it timeframe")
        if self.statistics and not isinstance(self.dtype, _STATISTICS_TYPES):
            msg = f"column {self.name}: statistics of {self.dtype} cannot be trusted"
            raise InvariantError(msg, remedy="Keep statistics to keys and times")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The declaration of a table.

    Attributes:
        name: ``layer.table``.
        grain: What one row is.
        columns: The columns in their stored order.
        key: The columns that identify a row.
        partition_by: The columns that become folders; their values are ``[A-Za-z0-9._-]``.
        sort_by: The order of rows inside a file.
        known: The column that dates the lake's knowledge of a row.
        version: Raised with every change of the contract.
        row_group_rows: Rows per Parquet row group.
        tail_rows: A file of fewer rows, and of fewer than ``tail_bytes``, is open: the next
            append rewrites it together with its own rows.
        tail_bytes: See ``tail_rows``.
        series_rows: An instrument that has so many rows in one write gets files of its own;
            0 keeps all instruments together.
        compression: Parquet codec.
        compression_level: Level of the codec; its default when None.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    sort_by: tuple[str, ...]
    known: str = "known_from"
    version: int = 1
    row_group_rows: int = 16_384
    tail_rows: int = 1_024
    tail_bytes: int = 8 << 20
    series_rows: int = 0
    compression: str = "lz4"
    compression_level: int | None = None
    by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})
        used = {*self.key, *self.partition_by, *self.sort_by, self.known}
        missing = used - set(self.by_name)
        if missing or len(self.by_name) != len(self.columns):
            msg = f"table {self.name}: undeclared or doubled columns {sorted(missing)}"
            raise InvariantError(msg)

    @property
    def layer(self) -> Layer:
        """The layer that the table belongs to."""
        return Layer(self.name.partition(".")[0])

    @property
    def path(self) -> str:
        """The table's folder below the lake's root."""
        return self.name.replace(".", "/")

    @property
    def schema(self) -> pl.Schema:
        """The exact schema, partition columns included."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    @property
    def file_schema(self) -> pl.Schema:
        """The schema of the data files: without the partition columns."""
        kept = (column for column in self.columns if column.name not in self.partition_by)
        return pl.Schema({column.name: column.dtype for column in kept})

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns that rows are compared on."""
        return tuple(column.name for column in self.columns if column.value)

    @property
    def bulky_columns(self) -> tuple[str, ...]:
        """The columns of which the row hash counts the length alone."""
        return tuple(column.name for column in self.columns if column.bulky)

    @property
    def statistics_columns(self) -> tuple[str, ...]:
        """The columns that files carry statistics of."""
        return tuple(
            column.name
            for column in self.columns
            if column.statistics and column.name not in self.partition_by
        )

    def check_schema(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return ``frame`` if its schema is exactly this table's.

        Raises:
            ContractError: A column is missing, unknown, of another type or out of place.
        """
        found, expected = frame.schema, self.schema
        if found == expected and list(found) == list(expected):
            return frame
        wrong = [
            f"{name} is {found.get(name, 'missing')}, not {dtype}"
            for name, dtype in expected.items()
            if found.get(name) != dtype
        ]
        wrong += [f"{name} is not declared" for name in found if name not in expected]
        msg = f"{self.name}: " + ("; ".join(wrong) or "columns out of order")
        raise ContractError(
            msg, remedy="Bring the frame to the declared schema before writing", table=self.name
        )

    def empty(self) -> pl.DataFrame:
        """Return a frame of this table without rows."""
        return pl.DataFrame(schema=self.schema)
