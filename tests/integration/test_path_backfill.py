"""The path, whole: a twin of the venue on one end, a scan of the lake on the other."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from path_support import (
    BTC,
    contents,
    landed,
    run_backfill,
    run_update,
    states,
    versions,
)
from replay_support import RECORDED, bars_frame, entry, needs_recorded, write_tape

import lake
from contracts.errors import (
    LakeOriginError,
    UnknownStreamError,
    UnknownSymbolError,
    UnsupportedByVenueError,
)
from contracts.names import CanonicalId, Timeframe, Venue
from contracts.time import iso, parse_time
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from flows.replay.tape import Tape
from lake.settings import Settings

START, END = "2026-03-01", "2026-03-03"


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape(days=2)


def told(frame):
    return frame.select("open_time", "open", "high", "low", "close", "volume", "trade_count")


async def test_every_bar_of_the_tape_is_stored_once_or_refused_with_a_reason(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        report = await run_backfill(lake_root, twin, START, END, timeframes=("1m", "5m", "1h"))
    assert not report.failures
    lk = lake.open(lake_root)
    bars = lk.bars(BTC, timeframe="1m", start=START, end=END).collect()
    given = tape.bars(*series("1m"), at=parse_time(END))
    given = given.filter(pl.col("open_time") < parse_time(END))
    bad_coin, bad_minute = tape.defects.violation
    assert str(bad_coin) == "BTC-USDT-SPOT"
    assert told(bars).equals(told(given.filter(pl.col("open_time") != bad_minute)))
    refused = lk.scan("ops.quarantine").collect().filter(pl.col("timeframe") == "1m")
    assert refused["event_time"].to_list() == [bad_minute]
    assert "high_covers_body" in refused["reasons"].item().to_list()


def series(timeframe):
    return Venue.BINANCE, CanonicalId.parse("BTC/USDT"), Timeframe.parse(timeframe)


async def test_the_ledger_tiles_the_span_and_names_outage_and_quarantine(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, "2026-02-28", "2026-03-03")
    runs = states(lake_root, "2026-02-28", "2026-03-03")
    assert sum(minutes for _, minutes in runs) == 3 * 1440
    assert runs[0] == ("unlisted", 1440)
    assert ("missing", 120) in runs
    assert ("quarantined", 1) in runs
    assert {state for state, _ in runs} == {"unlisted", "present", "missing", "quarantined"}
    ledger = lake.open(lake_root).ledger(BTC, timeframe="1m")
    missing = ledger.filter(pl.col("state") == "missing").row(0, named=True)
    assert missing["span_start"] == tape.defects.outage.start
    responses = landed(lake_root)["response_id"].to_list()
    assert missing["evidence"].removeprefix("response ") in responses


async def test_a_second_run_asks_for_nothing_and_commits_nothing(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        old = {"settings": Settings(fsync=False, recheck_hours=0)}
        await run_backfill(lake_root, twin, START, END, **old)
        before, asked = versions(lake_root), twin.stats.requests.copy()
        report = await run_backfill(lake_root, twin, START, END, **old)
        assert versions(lake_root) == before
        assert report.counts()["pages"] == 0
        new = twin.stats.requests - asked
        assert set(new) == {"api.binance.com/api/v3/time"}


async def test_a_recheck_of_the_same_answers_commits_no_bar_and_no_ledger(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
        before = versions(lake_root)
        report = await run_backfill(lake_root, twin, START, END, recheck=True)
        assert report.identical > 1000
        assert versions(lake_root) == before


async def test_an_open_bar_is_never_stored(tape, lake_root):
    clock = ReplayClock(parse_time("2026-03-01T10:30:30"))
    async with ReplayExchange(tape, clock=clock) as twin:
        await run_backfill(lake_root, twin, START, END, timeframes=("1m", "1h"))
        lk = lake.open(lake_root)
        minutes = lk.bars(BTC, timeframe="1m").collect()
        hours = lk.bars(BTC, timeframe="1h").collect()
        assert iso(minutes["open_time"].max()) == "2026-03-01T10:29:00Z"
        assert iso(hours["open_time"].max()) == "2026-03-01T09:00:00Z"
        clock.set(parse_time("2026-03-01T10:31:01"))
        await run_update(lake_root, twin)
        last = lk.bars(BTC, timeframe="1m").collect()["open_time"].max()
        assert iso(last) == "2026-03-01T10:29:00Z"  # closed for one second: within the grace
        clock.set(parse_time("2026-03-01T10:31:02"))
        await run_update(lake_root, twin)
        last = lk.bars(BTC, timeframe="1m").collect()["open_time"].max()
        assert iso(last) == "2026-03-01T10:30:00Z"


async def test_an_update_brings_every_stream_up_to_now(tape, lake_root):
    clock = ReplayClock(parse_time("2026-03-01T06:00:30"))
    async with ReplayExchange(tape, clock=clock) as twin:
        pairs = {"symbols": ("BTC/USDT", "ETH/USDT"), "timeframes": ("1m", "5m")}
        await run_backfill(lake_root, twin, START, END, **pairs)
        clock.step(timedelta(hours=2))
        report = await run_update(lake_root, twin)
        assert len(report.streams) == 4
        assert report.new == 2 * (120 + 24)
        before = versions(lake_root)
        assert (await run_update(lake_root, twin)).new == 0
        assert versions(lake_root) == before


async def test_an_update_of_an_empty_lake_says_what_to_do(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        with pytest.raises(UnknownStreamError, match="lake backfill"):
            await run_update(lake_root, twin)


async def test_a_revision_replaces_the_bar_and_keeps_the_old_one(tape, lake_root):
    revision = tape.defects.revision
    clock = ReplayClock(revision.at - timedelta(minutes=5))
    async with ReplayExchange(tape, clock=clock) as twin:
        await run_backfill(lake_root, twin, START, "2026-03-03")
        first_known = clock.known()
        clock.set(revision.at + timedelta(hours=1))
        report = await run_update(lake_root, twin, recheck=timedelta(days=2))
        assert report.revised == 1
    lk = lake.open(lake_root)
    history = lk.bar_history(BTC, timeframe="1m", start=revision.open_time).collect()
    both = history.filter(pl.col("open_time") == revision.open_time)
    assert both.height == 2
    assert both["known_from"].to_list() == [first_known, revision.at + timedelta(hours=1)]
    assert both["known_to"].to_list() == [revision.at + timedelta(hours=1), None]
    span = {"timeframe": "1m", "start": revision.open_time, "known_at": first_known}
    then = lk.bars(BTC, **span).collect().row(0)
    assert then == both.drop("known_to").row(0)


async def test_resumed_halfway_equals_uninterrupted(tape, tmp_path):
    small = Settings(fsync=False, batch_pages=1)
    async with ReplayExchange(tape) as twin:
        await run_backfill(tmp_path / "whole", twin, START, "2026-03-03", settings=small)
        await run_backfill(tmp_path / "parts", twin, START, "2026-03-01T13:07", settings=small)
        await run_backfill(tmp_path / "parts", twin, START, "2026-03-03", settings=small)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


async def test_streams_in_one_batch_equal_streams_apart(tape, tmp_path):
    pairs = {"symbols": ("BTC/USDT", "ETH/USDT"), "timeframes": ("1m", "1h")}
    async with ReplayExchange(tape) as twin:
        for pages in (1, 3, 64):
            settings = Settings(fsync=False, batch_pages=pages)
            root = tmp_path / str(pages)
            await run_backfill(root, twin, START, "2026-03-03", settings=settings, **pairs)
    one = contents(tmp_path / "1")
    assert one == contents(tmp_path / "3") == contents(tmp_path / "64")


async def test_what_is_asked_wrongly_is_told_before_anything_is_stored(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        with pytest.raises(UnknownSymbolError, match=r"Did you mean BTC/USDT"):
            await run_backfill(lake_root, twin, START, END, symbols=("BTC/USDX",))
        with pytest.raises(UnsupportedByVenueError):
            await run_backfill(lake_root, twin, START, END, symbols=("BTC/USDT:USDT",))
        assert versions(lake_root, ("silver.bars",)) == {"silver.bars": -1}


async def test_origins_never_mix(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
    async with ReplayExchange(GeneratedTape(seed=8, days=2)) as twin:
        with pytest.raises(LakeOriginError, match="never mix"):
            await run_backfill(lake_root, twin, START, END)


async def test_bars_that_the_venue_has_not_given_yet_are_pending(lake_root, tmp_path):
    bars_frame(START, 60).write_parquet(tmp_path / "bars.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("bars.parquet")))
    clock = ReplayClock(parse_time("2026-03-01T01:05:30"))
    async with ReplayExchange(tape, clock=clock) as twin:
        await run_backfill(lake_root, twin, START, END)
        assert states(lake_root, START, "2026-03-01T01:05") == [("present", 60), ("pending", 5)]
        clock.step(timedelta(hours=1))
        await run_update(lake_root, twin)
        runs = states(lake_root, START, "2026-03-01T02:05")
        assert runs == [("present", 60), ("missing", 55), ("pending", 10)]
    bars = lake.open(lake_root).bars(BTC, timeframe="1m").collect()
    assert bars["quote_volume"].null_count() == bars.height  # the tape has none: null, not 0


@needs_recorded
async def test_recorded_months_are_stored_whole_and_resample_to_the_venues_own_bars(lake_root):
    span = ("2026-03-24", "2026-04-22")
    symbols = ("BTC/USDT", "ETH/USDT")
    tape = Tape.load(RECORDED)
    async with ReplayExchange(tape, limits=False) as twin:
        codes = ("1m", "5m", "1h")
        report = await run_backfill(lake_root, twin, *span, symbols=symbols, timeframes=codes)
        assert not report.failures
        end = twin.clock.known()
    lk = lake.open(lake_root)
    values = ["open_time", "open", "high", "low", "close", "volume"]
    for symbol in symbols:
        instrument = CanonicalId.parse(symbol).at(Venue.BINANCE)
        kept = {}
        for code in codes:
            key = (Venue.BINANCE, instrument.canonical_id, Timeframe.parse(code))
            inside = pl.col("open_time").is_between(*map(parse_time, span), closed="left")
            given = tape.bars(*key, at=end).filter(inside).select(values)
            kept[code] = lk.bars(str(instrument), timeframe=code, columns=values).collect()
            assert kept[code].equals(given)
        for code, bars in (("5m", 5), ("1h", 60)):
            built = resampled(kept["1m"], code).filter(pl.col("bars") == bars).drop("bars")
            both = built.join(kept[code], on="open_time", how="semi")
            own = kept[code].join(built, on="open_time", how="semi")
            assert both.height == own.height > 100
            assert both.drop("volume").equals(own.drop("volume"))
            assert ((both["volume"] - own["volume"]).abs() <= 1e-9 * own["volume"]).all()


def resampled(minutes, every):
    grouped = minutes.sort("open_time").group_by_dynamic("open_time", every=every)
    return grouped.agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
        bars=pl.len(),
    )


@needs_recorded
async def test_the_28_outages_of_seven_years_are_found(lake_root):
    start, end = "2017-08-01", "2024-04-21T15:00"
    async with ReplayExchange(Tape.load(RECORDED), limits=False) as twin:
        report = await run_backfill(lake_root, twin, start, end, timeframes=("1h",))
    assert report.new == 58_419
    ledger = lake.open(lake_root).ledger(BTC, timeframe="1h", start=start, end=end)
    holes = ledger.filter(pl.col("state") == "missing")
    hours = (holes["span_end"] - holes["span_start"]).dt.total_hours()
    assert (holes.height, hours.sum(), hours.max()) == (28, 128, 33)
    assert ledger["state"].to_list()[0] == "unlisted"
    assert holes["evidence"].str.starts_with("response ").all()
