"""Bars for the benchmarks: vectorised, the same on every machine, with the digits of real ones."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.names import CanonicalId, InstrumentId, Timeframe, Venue
from contracts.spec import Time
from contracts.time import Span
from flows.batches import BarStream
from flows.conform import CANDIDATE_COLUMNS, PUBLICATION_LAG
from flows.replay.tape import BarSeries, Download, SeriesKey, Tape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

MINUTE = timedelta(minutes=1)
ONE_MINUTE = Timeframe.parse("1m")
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")
_SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def tape_bars(seed: int, span: Span) -> pl.DataFrame:
    """Return 1m bars in the columns of a tape: prices of two decimals, amounts of five."""
    count = span.duration // MINUTE

    def dice(number: int, sides: int) -> pl.Expr:
        return (pl.col("index").hash(seed * 100 + number) % sides).cast(pl.Int64)

    prices = pl.max_horizontal
    frame = (
        pl.select(index=pl.int_range(count, dtype=pl.Int64))
        .with_columns(close=(dice(1, 2_001) - 1_000).cum_sum().abs() + 1_000_000)
        .with_columns(open=pl.col("close").shift(1, fill_value=pl.col("close").first()))
        .with_columns(
            high=prices("open", "close") + dice(2, 500),
            low=pl.min_horizontal("open", "close") - dice(3, 500),
            volume=1 + dice(4, 3_000_000),
            trade_count=1 + dice(5, 3_000),
        )
        .with_columns(taker_buy_volume=pl.col("volume") * dice(6, 1_000) // 1_000)
        .with_columns(
            quote_volume=pl.col("volume") * pl.col("close"),
            taker_buy_quote_volume=pl.col("taker_buy_volume") * pl.col("close"),
        )
    )
    parts = dict.fromkeys(("open", "high", "low", "close"), 1e2)
    parts |= {name: 1e7 if "quote" in name else 1e5 for name in _SUMS}
    # Dividing by a column is correctly rounded; by a constant it is not.
    columns = [
        (pl.col(name).cast(pl.Float64) / (pl.col("index") * 0.0 + divisor)).alias(name)
        for name, divisor in parts.items()
    ]
    opened = pl.lit(span.start, Time) + pl.col("index") * pl.lit(MINUTE)
    names = ("open_time", *parts, "trade_count")
    return frame.with_columns(opened.alias("open_time"), *columns).select(names)


def candidates(bars: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """Return bars of a tape as conform hands them to the audit."""
    opened = pl.col("open_time")
    return bars.with_columns(
        instrument_id=pl.lit(instrument(symbol)),
        venue=pl.lit(Venue.BINANCE.value),
        timeframe=pl.lit("1m"),
        year=opened.dt.year().cast(pl.Int32),
        source=pl.lit("rest"),
        available_at=opened + MINUTE + PUBLICATION_LAG["rest"],
    ).select(CANDIDATE_COLUMNS)


def instrument(symbol: str) -> str:
    """Return the instrument_id of a symbol at Binance."""
    return str(CanonicalId.parse(symbol).at(Venue.BINANCE))


def stream(symbol: str) -> BarStream:
    """Return the stream of a symbol's 1m bars at Binance."""
    return BarStream(
        InstrumentId.parse(instrument(symbol)), symbol.replace("/", ""), Timeframe.parse("1m")
    )


def memory_tape(bars: Mapping[str, pl.DataFrame]) -> Tape:
    """Return a tape of 1m bars by symbol, held in memory."""
    keys = {
        symbol: SeriesKey(Venue.BINANCE, CanonicalId.parse(symbol), Timeframe.parse("1m"))
        for symbol in bars
    }
    return Tape(
        "replay:benchmark",
        {
            key: [Download(None, BarSeries(key, lambda symbol=symbol: bars[symbol]))]  # type: ignore[misc]
            for symbol, key in keys.items()
        },
    )


def write_tape(folder: Path, symbols: Sequence[str], span: Span) -> Path:
    """Write a tape of 1m bars to a folder, for a twin in a process of its own."""
    folder.mkdir(parents=True)
    entries = []
    for seed, symbol in enumerate(symbols):
        name = f"{symbol.replace('/', '_')}-1m.parquet"
        tape_bars(seed, span).write_parquet(folder / name, compression="lz4")
        facts = {"venue": "binance", "market": "spot", "symbol": symbol, "timeframe": "1m"}
        lines = [f'{key} = "{value}"' for key, value in (facts | {"file": name}).items()]
        entries.append("\n".join(["[[bars]]", *lines, ""]))
    (folder / "tape.toml").write_text("\n".join(entries))
    return folder


def span_of_days(end: datetime, days: int) -> Span:
    """Return the span of so many days before a time."""
    return Span(end - timedelta(days=days), end)
