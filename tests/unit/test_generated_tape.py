from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts.errors import TapeError
from contracts.names import CanonicalId, MarketType, Timeframe, Venue
from flows.replay.generated import GeneratedTape
from flows.replay.tape_file import BAR_SCHEMA, OPTIONAL

BTC, ETH = CanonicalId.parse("BTC/USDT"), CanonicalId.parse("ETH/USDT")
MINUTE, TICK = timedelta(minutes=1), timedelta(microseconds=1)


def bars(tape, canonical_id=BTC, timeframe="1m", at=None):
    when = at or tape.span.end + timedelta(days=9)
    return tape.bars(Venue.BINANCE, canonical_id, Timeframe.parse(timeframe), when)


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape()


def test_it_is_four_days_of_two_symbols_in_three_timeframes(tape):
    series = tape.bar_series(Venue.BINANCE, MarketType.SPOT)
    assert [f"{each} {frame}" for each, frame in series] == [
        f"{symbol}-USDT-SPOT {frame}" for symbol in ("BTC", "ETH") for frame in ("1m", "5m", "1h")
    ]
    assert dict(bars(tape).schema) == BAR_SCHEMA
    assert sum(bars(tape).null_count().row(0)) == 0
    assert bars(tape).height == 4 * 1440 - 120
    assert tape.last_close() == tape.span.end
    assert tape.rules(Venue.BINANCE, BTC).tick_size == "0.01000000"


def test_it_is_the_same_in_every_process(tape):
    code = (
        "from flows.replay.generated import GeneratedTape as T; from contracts.names import *;"
        "t = T(); b = t.bars(Venue.BINANCE, CanonicalId.parse('BTC/USDT'),"
        " Timeframe.parse('1h'), t.span.end);"
        "print(t.origin); print(b.write_csv())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "99", "PYTHONPATH": "."},
    )
    origin, _, text = run.stdout.partition("\n")
    assert origin == tape.origin
    assert text.strip() == bars(tape, timeframe="1h").write_csv().strip()


def test_parameters_change_the_origin_and_the_bars(tape):
    other = GeneratedTape(8, days=1)
    assert other.origin != tape.origin
    assert other.origin != GeneratedTape(8, days=1, symbols=["BTC/USDT"]).origin
    assert bars(other).item(100, "close") != bars(tape).item(100, "close")
    chosen = GeneratedTape(days=1, symbols=["SOL/USDC"], start="2025-07-01T05:00")
    assert bars(chosen, CanonicalId.parse("SOL/USDC")).item(0, "open_time") == chosen.span.start


@pytest.mark.parametrize(("timeframe", "length"), [("5m", "5m"), ("1h", "1h")])
@pytest.mark.parametrize("canonical_id", [BTC, ETH])
def test_longer_bars_are_the_minutes_together(tape, timeframe, length, canonical_id):
    sums = ("volume", *OPTIONAL)
    minutes = bars(tape, canonical_id)
    # Sums of decimals, as the venue's are: floats add up to other last digits.
    exact = [
        pl.col(name).cast(pl.String).cast(pl.Decimal(38, 10)).sum().cast(pl.String) for name in sums
    ]
    expected = minutes.group_by(pl.col("open_time").dt.truncate(length), maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        *exact,
    )
    expected = expected.with_columns(
        pl.col(name).cast(pl.Float64).cast(BAR_SCHEMA[name]) for name in sums
    ).select(list(BAR_SCHEMA))
    assert_frame_equal(bars(tape, canonical_id, timeframe), expected, check_exact=True)


def test_the_outage_has_no_rows_and_nothing_else_is_missing(tape):
    outage = tape.defects.outage
    assert outage.duration == timedelta(hours=2)
    for canonical_id in (BTC, ETH):
        times = set(bars(tape, canonical_id).get_column("open_time").to_list())
        every = {tape.span.start + number * MINUTE for number in range(4 * 1440)}
        assert {time for time in every if outage.contains(time)} == every - times


def test_flat_minutes_repeat_the_close_without_trades(tape):
    rows = bars(tape).rows(named=True)
    quiet = {row["open_time"] for row in rows if row["trade_count"] == 0}
    assert quiet == set(tape.defects.flat[BTC])
    for before, row in pairwise(rows):
        if row["open_time"] in quiet:
            assert {row[name] for name in ("open", "high", "low", "close")} == {before["close"]}
            assert row["volume"] == row["quote_volume"] == row["taker_buy_volume"] == 0


def test_exactly_one_minute_breaks_the_order_of_prices(tape):
    canonical_id, opened = tape.defects.violation
    assert canonical_id == BTC
    unsound = (
        (pl.col("high") < pl.max_horizontal("open", "close"))
        | (pl.col("low") > pl.min_horizontal("open", "close"))
        | (pl.col("taker_buy_volume") > pl.col("volume"))
    )
    broken = bars(tape).filter(unsound)
    assert broken.get_column("open_time").to_list() == [opened]
    assert broken.item(0, "high") < broken.item(0, "close")
    for canonical_id, timeframe in tape.bar_series(Venue.BINANCE, MarketType.SPOT):
        if (canonical_id, str(timeframe)) != (BTC, "1m"):
            assert bars(tape, canonical_id, str(timeframe)).filter(unsound).height == 0


@pytest.mark.parametrize("timeframe", ["1m", "5m", "1h"])
def test_the_revision_changes_one_bar_from_its_time_on(tape, timeframe):
    revision = tape.defects.revision
    before = bars(tape, timeframe=timeframe, at=revision.at - TICK)
    after = bars(tape, timeframe=timeframe, at=revision.at)
    changed = after.join(before, on=after.columns, how="anti", nulls_equal=True)
    opened = Timeframe.parse(timeframe).floor(revision.open_time)
    assert changed.get_column("open_time").to_list() == [opened]
    assert before.height == after.height
    eth = [bars(tape, ETH, timeframe, at) for at in (revision.at - TICK, revision.at)]
    assert_frame_equal(*eth, check_exact=True)


def test_prices_lie_on_the_tick(tape):
    for name in ("open", "high", "low", "close"):
        assert all(value == round(value, 2) for value in bars(tape).get_column(name))


@pytest.mark.parametrize(
    "wrong", [{"symbols": []}, {"days": 0}, {"start": "2026-03-01T00:30"}], ids=str
)
def test_parameters_that_make_no_tape_are_refused(wrong):
    with pytest.raises(TapeError, match="generated tape needs"):
        GeneratedTape(**wrong)


@pytest.mark.parametrize("days", [1, 2, 7])
def test_defects_of_any_length_lie_on_bars_apart_from_the_outage(days):
    tape = GeneratedTape(3, days=days)
    times = set(bars(tape).get_column("open_time").to_list())
    assert {tape.defects.violation[1], tape.defects.revision.open_time} <= times
    assert set(tape.defects.flat[BTC]) <= times
