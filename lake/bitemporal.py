"""The algebra of spans and of knowledge, pure and in one place.

Writers and readers share it: what the ledger shows is folded here, what a bar was known as
is decided here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

T = TypeVar("T")


def paint(spans: Iterable[tuple[int, int, T]]) -> list[tuple[int, int, T]]:
    """Lay half-open spans over one another, later ones on top; return what is seen.

    Shape: disjoint spans in order of start; adjacent ones are not merged.

    Example:
        >>> paint([(0, 10, "a"), (4, 6, "b")])
        [(0, 4, 'a'), (4, 6, 'b'), (6, 10, 'a')]
    """
    starts: list[int] = []
    ends: list[int] = []
    values: list[T] = []
    for start, end, value in spans:
        first = bisect_right(ends, start)
        after = bisect_left(starts, end)
        seen = [(start, end, value)]
        if first < after and starts[first] < start:
            seen.insert(0, (starts[first], start, values[first]))
        if first < after and ends[after - 1] > end:
            seen.append((end, ends[after - 1], values[after - 1]))
        starts[first:after] = [piece[0] for piece in seen]
        ends[first:after] = [piece[1] for piece in seen]
        values[first:after] = [piece[2] for piece in seen]
    return list(zip(starts, ends, values, strict=True))


def visible(
    frame: pl.DataFrame, *, stream: Sequence[str], start: str, end: str, priority: Sequence[str]
) -> pl.DataFrame:
    """Cut the spans of each stream to what is seen when higher priority lies on top.

    Args:
        frame: One row per span.
        stream: Columns that separate the streams.
        start: Column of span starts, Datetime in microseconds.
        end: Column of span ends, exclusive.
        priority: Columns whose ascending order is from bottom to top.

    Shape: the columns of ``frame``; disjoint spans in order of stream and start.
    """
    ordered = frame.sort(*stream, start, *priority)
    reached = pl.col(end).cum_max().shift(1).over(stream)
    hidden = ordered.select(*stream, overlaps=(pl.col(start) < reached).fill_null(value=False))
    busy = hidden.filter("overlaps").select(stream).unique()
    if busy.is_empty():
        return ordered
    calm = ordered.join(busy, on=stream, how="anti", nulls_equal=True)
    layered = ordered.join(busy, on=stream, how="semi", nulls_equal=True)
    painted = [
        _painted(group.sort(*priority, start, maintain_order=True), start, end)
        for group in layered.partition_by(stream, maintain_order=True)
    ]
    return pl.concat([calm, *painted]).sort(*stream, start)


def _painted(group: pl.DataFrame, start: str, end: str) -> pl.DataFrame:
    spans = zip(
        group[start].to_physical().to_list(),
        group[end].to_physical().to_list(),
        range(group.height),
        strict=True,
    )
    seen = paint(spans)
    dtype = group.schema[start]
    return group[[index for _, _, index in seen]].with_columns(
        pl.Series(start, [piece[0] for piece in seen], dtype=pl.Int64).cast(dtype),
        pl.Series(end, [piece[1] for piece in seen], dtype=pl.Int64).cast(dtype),
    )


def known_versions(
    current: pl.DataFrame, revisions: pl.DataFrame, key: Sequence[str], known_at: datetime
) -> pl.DataFrame:
    """Return, for each key, the version that was known at ``known_at``.

    A current row known by then is the newest version of its key, so it is the answer. Of a
    key whose current row came later, the answer is the newest superseded version known by
    then, if there is one. A current row is replaced, never removed, so every superseded
    version has a current one.

    Args:
        current: Rows as known now, one per key.
        revisions: Superseded rows; copies of current rows and copies of copies do no harm.
        key: The columns that identify a row.
        known_at: A point on the system axis.

    Shape: the columns of ``current`` in the order of its rows, without the keys of which
    nothing was known.
    """
    moment = pl.lit(known_at, pl.Datetime("us", "UTC"))
    places = current.select((pl.col("known_from") > moment).arg_true()).to_series()
    if places.is_empty():
        return current
    late = current[places].select(key).with_columns(place=places)
    older = (
        revisions.filter(pl.col("known_from") <= moment)
        .sort("known_from")
        .unique(subset=list(key), keep="last", maintain_order=True)
        .join(late, on=key, how="inner")
        .sort("place")
    )
    replaced = pl.DataFrame(
        [
            current[name] if name in key else current[name].scatter(older["place"], older[name])
            for name in current.columns
        ]
    )
    return replaced.filter(pl.col("known_from") <= moment)


def version_spans(
    current: pl.LazyFrame, revisions: pl.LazyFrame, key: Sequence[str]
) -> pl.LazyFrame:
    """Return every version of every key with the span in which it was the known one.

    ``known_to`` is derived: the next ``known_from`` of the key, null for what is known now.
    """
    every = pl.concat([current, revisions], how="vertical").unique(
        subset=[*key, "known_from"], keep="first", maintain_order=True
    )
    return every.sort(*key, "known_from").with_columns(
        known_to=pl.col("known_from").shift(-1).over(list(key))
    )
