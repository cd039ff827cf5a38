"""silver.bars and silver.bar_revisions: OHLCV bars, as known now and as known before."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

_COLUMNS = (
    Column("instrument_id", pl.String(), "The instrument at its venue.", statistics=True),
    Column("venue", pl.String(), "The venue."),
    Column("timeframe", pl.String(), "Length of the bar, for instance 1m or 1h."),
    Column("year", pl.Int32(), "UTC year of open_time."),
    Column("open_time", Time, "Start of the bar; it covers [open_time, open_time + timeframe).",
           statistics=True),
    Column("open", pl.Float64(), "First price.", unit="quote per base", value=True),
    Column("high", pl.Float64(), "Highest price.", unit="quote per base", value=True),
    Column("low", pl.Float64(), "Lowest price.", unit="quote per base", value=True),
    Column("close", pl.Float64(), "Last price.", unit="quote per base", value=True),
    Column("volume", pl.Float64(), "Amount traded.", unit="base", value=True),
    Column("quote_volume", pl.Float64(), "Value traded; null where the venue gives none.",
           unit="quote", nullable=True, value=True),
    Column("trade_count", pl.Int64(), "Number of trades; null where the venue gives none.",
           nullable=True, value=True),
    Column("taker_buy_volume", pl.Float64(),
           "Amount bought by takers; null where the venue gives none.",
           unit="base", nullable=True, value=True),
    Column("taker_buy_quote_volume", pl.Float64(),
           "Value bought by takers; null where the venue gives none.",
           unit="quote", nullable=True, value=True),
    Column("source", pl.String(), "Where the row came from: archive, rest, stream or derived."),
    Column("available_at", Time,
           "Close of the bar plus the source's publication lag: when a backtest may assume it "
           "could have been read."),
    Column("known_from", Time, "When the lake first held this version of the row.",
           statistics=True),
)  # fmt: skip

BARS = TableSpec(
    name="silver.bars",
    grain="one bar of one instrument, as known now",
    columns=_COLUMNS,
    key=("instrument_id", "timeframe", "open_time"),
    partition_by=("venue", "timeframe", "year"),
    sort_by=("instrument_id", "open_time"),
    tail_rows=64_000,
    series_rows=4_000,
)

BAR_REVISIONS = TableSpec(
    name="silver.bar_revisions",
    grain="one superseded version of one bar, a verbatim copy",
    columns=_COLUMNS,
    key=("instrument_id", "timeframe", "open_time", "known_from"),
    partition_by=("venue", "timeframe", "year"),
    sort_by=("instrument_id", "open_time", "known_from"),
    series_rows=4_000,
)
