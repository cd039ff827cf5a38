"""Runs of present bars and the holes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import ContractError
from contracts.spec import Time
from contracts.time import Span, from_micros, to_micros

if TYPE_CHECKING:
    from contracts.names import Timeframe


def runs(open_times: pl.Series, timeframe: Timeframe, asked: Span) -> tuple[list[Span], list[Span]]:
    """Return the present runs and the holes of ``asked``, each maximal and half-open.

    Together they tile ``asked`` exactly. Times may come in any order and more than once;
    those outside ``asked`` are left out.

    Raises:
        ContractError: A time is null, of another type or off the grid, or ``asked`` does not
            begin and end on the grid.
    """
    step = timeframe.micros
    start, end = to_micros(asked.start), to_micros(asked.end)
    if start % step or end % step:
        msg = f"{asked} does not lie on the grid of {timeframe}"
        raise ContractError(msg, remedy="Align it first, with Timeframe.bars_of")
    opens = _inside(open_times, step, start, end, timeframe)
    if opens.is_empty():
        return [], [asked]
    frame = opens.to_frame("first")
    apart = pl.col("first").diff() != step
    starts = frame.filter(apart.fill_null(value=True))["first"].to_list()
    ends = frame.filter(apart.shift(-1, fill_value=True))["first"].to_list()
    bounds = list(zip(starts, (last + step for last in ends), strict=True))
    edges = [start, *(edge for bound in bounds for edge in bound), end]
    holes = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    return _spans(bounds), _spans(holes)


def _inside(
    open_times: pl.Series, step: int, start: int, end: int, timeframe: Timeframe
) -> pl.Series:
    if open_times.dtype != Time or open_times.null_count():
        msg = f"open times are {open_times.dtype} with {open_times.null_count()} nulls"
        raise ContractError(msg, remedy=f"Give {Time} without nulls")
    micros = open_times.to_physical()
    if (micros % step != 0).any():
        msg = f"open times lie off the grid of {timeframe}"
        raise ContractError(msg, remedy="Audit the bars first: such rows are bad")
    micros = micros.filter((micros >= start) & (micros < end))
    return micros if _rising(micros) else micros.unique().sort()


def _rising(values: pl.Series) -> bool:
    return bool((values.diff().slice(1) > 0).all())


def _spans(bounds: list[tuple[int, int]]) -> list[Span]:
    return [Span(from_micros(first), from_micros(last)) for first, last in bounds]
