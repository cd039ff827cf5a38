"""The bar that is still open: what a venue shows of it before it closes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.time import parse_time, to_millis

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from contracts.names import Timeframe
    from flows.replay.tape import BarSeries

Bar = dict[str, Any]
_SUMS = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")


def open_bar(
    series: BarSeries, position: int, now: datetime, finer: Iterable[BarSeries]
) -> pl.DataFrame:
    """Return one row: the bar at ``position`` as it stands at ``now``, before its close.

    It is built from the bars of the finest series that holds any inside it, the last of them
    in part; without such a series it is a part of the bar itself, in proportion to the time.
    """
    frame = series.frame
    whole = frame.row(position, named=True)
    opened = parse_time(whole["open_time"])
    built = partial_bar(whole, series.key.timeframe, now)
    for source in sorted(finer, key=lambda candidate: candidate.key.timeframe):
        start = source.position(to_millis(opened))
        stop = source.position(to_millis(now), after=True)
        rows = source.frame.slice(start, stop - start).to_dicts()
        if rows:
            rows[-1] = partial_bar(rows[-1], source.key.timeframe, now)
            built = _together(rows, whole)
            break
    return pl.DataFrame([built], schema=frame.schema)


def partial_bar(bar: Bar, timeframe: Timeframe, now: datetime) -> Bar:
    """Return the bar as the share of its time that has passed suggests it stood.

    Amounts grow evenly; prices move straight from the open to their final values and keep
    the decimals of the bar. A closed bar is returned as it is.
    """
    share = (now - parse_time(bar["open_time"])) / timeframe.duration
    if share >= 1:
        return bar
    first = bar["open"]
    decimals = max(_decimals(bar[name]) for name in ("open", "high", "low", "close"))
    partial = dict(bar)
    for name in ("high", "low", "close"):
        partial[name] = round(first + (bar[name] - first) * share, decimals)
    for name in _SUMS:
        if bar.get(name) is not None:
            partial[name] = _floored(bar[name] * share, 0 if name == "trade_count" else 8)
    return partial


def _together(rows: list[Bar], whole: Bar) -> Bar:
    bar = dict(whole)
    bar["open"], bar["close"] = rows[0]["open"], rows[-1]["close"]
    bar["high"] = max(row["high"] for row in rows)
    bar["low"] = min(row["low"] for row in rows)
    for name in _SUMS:
        if name in whole:
            bar[name] = _sum(name, [row.get(name) for row in rows])
    return bar


def _sum(name: str, amounts: list[Any]) -> float | int | None:
    """Return the sum as of decimals: a sum of floats would gain digits that no venue sends."""
    if any(amount is None for amount in amounts):
        return None
    if name == "trade_count":
        return int(sum(amounts))
    return float(sum((Decimal(repr(amount)) for amount in amounts), Decimal(0)))


def _decimals(value: float) -> int:
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _floored(value: float, decimals: int) -> float | int:
    scale = 10**decimals
    whole: int = math.floor(value * scale)
    return whole / scale if decimals else whole
