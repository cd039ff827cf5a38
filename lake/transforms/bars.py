"""Compare a batch of bars with what is stored, without touching a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.tables import BARS

if TYPE_CHECKING:
    from collections.abc import Mapping

ROW_KEY = ("instrument_id", "open_time")
# Of two sources that disagree the one with the higher rank is believed.
SOURCE_RANKS: dict[str, int] = {"derived": 0, "stream": 1, "rest": 2, "archive": 3}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A batch of one partition, sorted into what it means.

    Attributes:
        new: Rows whose key is not stored.
        revised: Rows that replace a stored row of the same key.
        superseded: The stored rows that ``revised`` replaces, verbatim.
        refused: Rows of a lower-ranked source that contradict a stored row.
        identical: Number of rows that are stored already with equal values.
    """

    new: pl.DataFrame
    revised: pl.DataFrame
    superseded: pl.DataFrame
    refused: pl.DataFrame
    identical: int


def compare(
    batch: pl.DataFrame, stored: pl.DataFrame, *, ranks: Mapping[str, int] = SOURCE_RANKS
) -> Comparison:
    """Sort the rows of ``batch`` by what ``stored`` holds of them.

    Rows are compared on value columns alone, null being equal to null.

    Shape: ``batch`` has the columns of silver.bars but known_from, with unique keys;
    ``stored`` has all columns, with unique keys; both of one partition.
    """
    nothing = batch.clear()
    if stored.is_empty():
        return Comparison(batch, nothing, stored, nothing, 0)
    values = BARS.value_columns
    known = stored.select(*ROW_KEY, *values, "source", pl.lit(value=True).alias("is_stored"))
    joined = batch.join(known, on=ROW_KEY, how="left", suffix="_stored", maintain_order="left")
    is_stored = pl.col("is_stored").is_not_null()
    differs = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in values
    )
    outranked = _rank("source", ranks) < _rank("source_stored", ranks)
    marked = joined.select(
        *batch.columns,
        verdict=pl.when(~is_stored)
        .then(pl.lit("new"))
        .when(~differs)
        .then(pl.lit("identical"))
        .when(outranked)
        .then(pl.lit("refused"))
        .otherwise(pl.lit("revised")),
    )

    def having(verdict: str) -> pl.DataFrame:
        return marked.filter(pl.col("verdict") == verdict).select(batch.columns)

    revised = having("revised")
    superseded = stored.join(revised.select(ROW_KEY), on=ROW_KEY, how="semi")
    identical = int((marked["verdict"] == "identical").sum())
    return Comparison(having("new"), revised, superseded, having("refused"), identical)


def _rank(column: str, ranks: Mapping[str, int]) -> pl.Expr:
    return pl.col(column).replace_strict(dict(ranks), default=0, return_dtype=pl.Int32)
