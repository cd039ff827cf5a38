"""Every fault that the replay exchange knows, met on the path: told, healed, nothing lost."""

from __future__ import annotations

import asyncio
import shutil
from hashlib import sha256

import polars as pl
import pytest
from path_support import BTC, Notes, contents, landed, run_backfill, run_update, states, versions
from replay_support import bars_frame, entry, write_tape

import lake
from contracts.errors import (
    AuditError,
    ClockRegressionError,
    PayloadError,
    RateLimitedError,
    VenueRejectedError,
    VenueUnavailableError,
)
from contracts.names import Timeframe, Venue
from contracts.time import SystemClock, parse_time
from flows.replay.clock import ReplayClock
from flows.replay.faults import FaultKind
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from flows.replay.tape import Tape
from flows.reprocess import conform_from_bronze
from flows.venues.client import Backoff
from flows.work import open_work
from lake.settings import Settings

START, END = "2026-03-01", "2026-03-03"
ONE_PAGE = Settings(fsync=False, batch_pages=1)


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape(days=2)


@pytest.fixture(scope="module")
def sound(tape, tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "lake"

    async def fill():
        async with ReplayExchange(tape) as twin:
            await run_backfill(root, twin, START, END)

    asyncio.run(fill())
    return contents(root)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (FaultKind.STATUS, {"status": 500}),
        (FaultKind.STATUS, {"status": 502}),
        (FaultKind.STATUS, {"status": 503}),
        (FaultKind.STATUS, {"status": 429, "retry_after_seconds": 1}),
        (FaultKind.HTML, {}),
        (FaultKind.TRUNCATED, {}),
        (FaultKind.EMPTY, {}),
        (FaultKind.EMPTY_LIST, {}),
        (FaultKind.RESET, {"times": 2}),
        (FaultKind.SLOW_BODY, {"seconds": 0.2}),
        (FaultKind.MISSING_ROWS, {}),
        (FaultKind.DUPLICATED_ROWS, {}),
    ],
    ids=lambda value: str(value.value) if isinstance(value, FaultKind) else str(value),
)
async def test_a_passing_fault_changes_nothing(tape, sound, lake_root, kind, more):
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(kind, endpoint="klines", after=2, **more)
        report = await run_backfill(lake_root, twin, START, END)
        assert twin.stats.faults
    assert not report.failures
    assert contents(lake_root) == sound


async def test_what_was_no_use_is_kept_as_it_came(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(FaultKind.HTML, endpoint="klines", after=1)
        twin.faults.arm(FaultKind.STATUS, endpoint="klines", after=2, status=503)
        await run_backfill(lake_root, twin, START, END)
    kept = landed(lake_root)
    assert kept["status"].to_list().count(503) == 1
    html = kept.filter(pl.col("payload").str.contains("<html"), pl.col("status") == 200)
    assert html.height >= 1


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        (FaultKind.STATUS, {"status": 451}, VenueRejectedError),
        (FaultKind.HTML, {}, PayloadError),
        (FaultKind.TRUNCATED, {}, PayloadError),
        (FaultKind.EMPTY, {}, PayloadError),
        (FaultKind.EMPTY_LIST, {}, PayloadError),
        (FaultKind.MISSING_ROWS, {}, PayloadError),
        (FaultKind.SHIFTED_PAGE, {}, AuditError),
    ],
    ids=lambda value: str(getattr(value, "value", value)),
)
async def test_a_lasting_fault_ends_the_stream_and_publishes_nothing(
    tape, sound, lake_root, kind, more, expected
):
    notes = Notes()
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(kind, endpoint="klines", symbol="BTCUSDT", after=1, times=None, **more)
        report = await run_backfill(
            lake_root, twin, START, END, symbols=("BTC/USDT", "ETH/USDT"), progress=notes
        )
        assert [type(failure) for failure in report.failures] == [expected]
        assert report.exit_code == expected.exit_code
        assert report.failures[0].remedy
        assert any(expected.__name__ in note for note in notes.notes)
        stored = lake.open(lake_root).scan("silver.bars").collect()
        assert stored["instrument_id"].unique().to_list() == ["ETH-USDT-SPOT.BINANCE"]
        twin.faults.clear()
        healed = await run_backfill(lake_root, twin, START, END)
    assert not healed.failures
    bars = lake.open(lake_root).bars(BTC, timeframe="1m").collect().rows()
    assert bars == sound["bars"]


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
async def test_an_empty_list_does_not_prove_that_a_stream_has_no_bars(
    tape, sound, lake_root, times
):
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(FaultKind.EMPTY_LIST, endpoint="klines", symbol="BTCUSDT", times=times)
        report = await run_backfill(lake_root, twin, START, END, symbols=("BTC/USDT", "ETH/USDT"))
        assert [type(failure) for failure in report.failures] == [PayloadError]
        assert "no proof" in report.failures[0].remedy
        assert states(lake_root, START, END) == [("unfetched", 2880)]
        empty = landed(lake_root).filter(pl.col("sha256") == sha256(b"[]").hexdigest())
        assert empty.height == (1 if times else 2)
        twin.faults.clear()
        healed = await run_backfill(lake_root, twin, START, END)
    assert not healed.failures
    assert lake.open(lake_root).bars(BTC, timeframe="1m").collect().rows() == sound["bars"]


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_LIST, FaultKind.SHIFTED_PAGE])
async def test_an_answer_about_a_hole_that_is_no_use_is_kept(tape, lake_root, kind):
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(kind, endpoint="klines", after=2, times=None)
        report = await run_backfill(lake_root, twin, START, END)
        asked = sum(count for name, count in twin.stats.requests.items() if "klines" in name)
    assert report.failures
    assert landed(lake_root).filter(pl.col("endpoint").str.contains("klines")).height == asked


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"kind": FaultKind.STATUS, "status": 503}, VenueUnavailableError),
        ({"kind": FaultKind.STATUS, "status": 418, "retry_after_seconds": 3600}, RateLimitedError),
    ],
)
async def test_a_venue_that_is_down_ends_the_run_and_leaves_what_was_stored(
    tape, sound, lake_root, more, expected, monkeypatch
):
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)
    async with ReplayExchange(tape) as twin:
        fault = dict(more)
        twin.faults.arm(fault.pop("kind"), endpoint="klines", after=4, times=None, **fault)
        with pytest.raises(expected):
            await run_backfill(lake_root, twin, START, END, settings=ONE_PAGE)
        twin.faults.clear()
    stored = lake.open(lake_root).scan("silver.bars").collect()
    assert 0 < stored.height < len(sound["bars"])
    runs = lake.open(lake_root).scan("ops.runs").collect()
    assert runs["event"].to_list() == ["started", "failed"]
    assert expected.code in runs["detail"].to_list()[1]


async def test_a_revised_bar_on_a_second_fetch_is_a_revision(tape, sound, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
        twin.faults.arm(FaultKind.REVISED_BAR, endpoint="klines")
        report = await run_backfill(lake_root, twin, START, END, recheck=True)
    assert report.revised == 1
    history = contents(lake_root)["history"]
    assert len(history) == len(sound["history"]) + 1


def tape_with_bad_rows(folder, count, rows=1440):
    frame = bars_frame(START, rows)
    bad = frame.with_row_index("at").select("at", "high", "low")
    high = [low - 1 if at < count else high for at, high, low in bad.iter_rows()]
    frame.with_columns(high=pl.Series(high, dtype=pl.Float64)).write_parquet(
        folder / "bars.parquet"
    )
    return Tape.load(write_tape(folder, entry("bars.parquet")))


async def test_a_poison_bar_in_a_small_batch_is_quarantined_alone(lake_root, tmp_path):
    async with ReplayExchange(tape_with_bad_rows(tmp_path, 1, rows=10)) as twin:
        report = await run_backfill(lake_root, twin, START, "2026-03-01T00:10")
        assert (report.new, report.counts()["quarantined"], report.failures) == (9, 1, [])
        assert states(lake_root, START, "2026-03-01T00:10") == [
            ("quarantined", 1),
            ("present", 9),
        ]
        before = versions(lake_root)
        await run_backfill(lake_root, twin, START, "2026-03-01T00:10", recheck=True)
        assert versions(lake_root) == before


async def test_many_bad_rows_trip_the_breaker_and_can_be_released(lake_root, tmp_path):
    async with ReplayExchange(tape_with_bad_rows(tmp_path, 30)) as twin:
        report = await run_backfill(lake_root, twin, START, "2026-03-02")
        assert [type(each) for each in report.failures] == [AuditError]
        assert report.exit_code == 3
        lk = lake.open(lake_root)
        assert lk.scan("silver.bars").collect().is_empty()
        assert lk.scan("ops.quarantine").collect().height == 30
        assert states(lake_root, START, "2026-03-02") == [("unfetched", 1440)]
        verdicts = lk.scan("ops.audits").collect().filter(pl.col("audit") == "breaker")
        assert verdicts["verdict"].to_list() == ["tripped"]
        asked = twin.stats.requests.copy()
        work = open_work(str(lake_root), clock=twin.clock, origin=None)
        released = await conform_from_bronze(
            work,
            Venue.BINANCE,
            symbols=["BTC/USDT"],
            timeframes=[Timeframe.parse("1m")],
            accept_quarantine=True,
        )
        assert twin.stats.requests == asked
    assert (released.new, released.failures) == (1410, [])
    lk = lake.open(lake_root)
    assert lk.scan("ops.quarantine").collect().height == 30
    assert (
        "released"
        in lk.scan("ops.audits").collect().filter(pl.col("audit") == "breaker")["verdict"].to_list()
    )
    assert states(lake_root, START, "2026-03-02") == [("quarantined", 30), ("present", 1410)]


async def test_a_bad_stretch_is_judged_alike_in_a_run_that_was_resumed(lake_root, tmp_path):
    frame = bars_frame(START, 5000)
    at = pl.int_range(5000, eager=True)
    bad = (at >= 4100) & (at < 4145)
    high = pl.when(bad).then(pl.col("low") - 1).otherwise(pl.col("high"))
    frame.with_columns(high=high).write_parquet(tmp_path / "bars.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("bars.parquet")))
    settings = Settings(fsync=False, batch_pages=2)
    parts, whole = lake_root / "parts", lake_root / "whole"
    async with ReplayExchange(tape) as twin:
        one = await run_backfill(whole, twin, START, "2026-03-04T11:20", settings=settings)
        await run_backfill(parts, twin, START, "2026-03-02T09:20", settings=settings)
        two = await run_backfill(parts, twin, START, "2026-03-04T11:20", settings=settings)
    assert [type(each) for each in one.failures] == [type(each) for each in two.failures]
    assert contents(parts) == contents(whole)


async def test_a_bar_off_the_grid_is_quarantined_and_holds_nothing_back(lake_root, tmp_path):
    frame = bars_frame(START, 300)
    moved = pl.col("open_time") + pl.duration(seconds=pl.when(pl.int_range(300) == 77).then(7))
    frame = frame.with_columns(open_time=moved.fill_null(pl.col("open_time")))
    frame.write_parquet(tmp_path / "bars.parquet")
    async with ReplayExchange(Tape.load(write_tape(tmp_path, entry("bars.parquet")))) as twin:
        report = await run_backfill(lake_root, twin, START, "2026-03-01T05:00")
    assert (report.new, report.counts()["quarantined"], report.failures) == (299, 1, [])
    runs = states(lake_root, START, "2026-03-01T05:00")
    assert runs == [("present", 77), ("quarantined", 1), ("present", 222)]


async def test_a_stream_that_trips_in_one_span_is_held_back_in_all(lake_root, tmp_path):
    async with ReplayExchange(tape_with_bad_rows(tmp_path, 30)) as twin:
        middle = ("2026-03-01T10:00", "2026-03-01T11:00")
        assert (await run_backfill(lake_root, twin, *middle)).new == 60
        report = await run_backfill(lake_root, twin, START, "2026-03-02")
    assert [type(each) for each in report.failures] == [AuditError]
    runs = states(lake_root, START, "2026-03-02")
    assert runs == [("unfetched", 600), ("present", 60), ("unfetched", 780)]


async def test_nineteen_bad_rows_do_not_trip_it(lake_root, tmp_path):
    async with ReplayExchange(tape_with_bad_rows(tmp_path, 19)) as twin:
        report = await run_backfill(lake_root, twin, START, "2026-03-02")
    assert (report.new, report.failures) == (1421, [])


async def test_conforming_bronze_again_changes_nothing(tape, sound, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
        before = versions(lake_root)
        work = open_work(str(lake_root), clock=twin.clock, origin=None)
        report = await conform_from_bronze(work, Venue.BINANCE)
    assert report.identical == len(sound["bars"])
    assert versions(lake_root) == before
    assert contents(lake_root) == sound


async def test_bronze_alone_rebuilds_silver_with_its_newest_values(tape, lake_root, tmp_path):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
        twin.faults.arm(FaultKind.REVISED_BAR, endpoint="klines")
        await run_backfill(lake_root, twin, START, END, recheck=True)
        copy = tmp_path / "copy"
        _copy_without_silver(lake_root, copy)
        work = open_work(str(copy), clock=twin.clock, origin=None)
        await conform_from_bronze(work, Venue.BINANCE)
    values = ["open_time", "open", "high", "low", "close", "volume"]
    first, second = (
        lake.open(root).bars(BTC, timeframe="1m", columns=values).collect()
        for root in (lake_root, copy)
    )
    assert first.equals(second)


def _copy_without_silver(root, copy):

    ignored = shutil.ignore_patterns("bars", "bar_revisions", "ledger")
    shutil.copytree(root, copy, ignore=ignored)


@pytest.mark.parametrize("kind", [FaultKind.MISSING_ROWS, FaultKind.HTML, FaultKind.TRUNCATED])
async def test_conform_believes_the_newest_sound_answer(tape, sound, lake_root, tmp_path, kind):
    async with ReplayExchange(tape) as twin:
        twin.faults.arm(kind, endpoint="klines", after=1)
        await run_backfill(lake_root, twin, START, END)
        before = versions(lake_root)
        work = open_work(str(lake_root), clock=twin.clock, origin=None)
        report = await conform_from_bronze(work, Venue.BINANCE)
        assert (report.identical, report.failures) == (len(sound["bars"]), [])
        assert versions(lake_root) == before
        copy = tmp_path / "copy"
        _copy_without_silver(lake_root, copy)
        again = open_work(str(copy), clock=twin.clock, origin=None)
        await conform_from_bronze(again, Venue.BINANCE)
    assert contents(copy)["bars"] == sound["bars"]


async def test_an_error_page_never_hides_an_older_answer(tape, sound, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, START, END)
        twin.faults.arm(FaultKind.HTML, endpoint="klines", times=None)
        await run_backfill(lake_root, twin, START, END, recheck=True)
        notes = Notes()
        work = open_work(str(lake_root), clock=twin.clock, origin=None, progress=notes)
        report = await conform_from_bronze(work, Venue.BINANCE)
    assert (report.identical, report.failures) == (len(sound["bars"]), [])
    assert any("passed over" in note for note in notes.notes)


async def test_a_stored_bar_stays_present_when_the_venue_gives_it_no_more(lake_root, tmp_path):
    whole = bars_frame(START, 60)
    whole.write_parquet(tmp_path / "one.parquet")
    whole.filter(pl.int_range(60) != 30).write_parquet(tmp_path / "two.parquet")
    entries = (
        entry("one.parquet", downloaded="2026-03-01"),
        entry("two.parquet", downloaded="2026-03-02"),
    )
    clock = ReplayClock(parse_time("2026-03-01T12:00"))
    async with ReplayExchange(Tape.load(write_tape(tmp_path, *entries)), clock=clock) as twin:
        await run_backfill(lake_root, twin, START, "2026-03-01T01:00")
        clock.set(parse_time("2026-03-02T12:00"))
        report = await run_backfill(lake_root, twin, START, "2026-03-01T01:00", recheck=True)
    assert not report.failures
    assert states(lake_root, START, "2026-03-01T01:00") == [("present", 60)]


async def test_what_lies_before_the_listing_is_not_walked_page_by_page(tape, lake_root):
    async with ReplayExchange(tape) as twin:
        await run_backfill(lake_root, twin, "2026-01-01", "2026-01-02")
        report = await run_update(lake_root, twin)
    assert report.counts()["pages"] == 3
    told = states(lake_root, "2026-01-01", "2026-03-01")
    assert told == [("unlisted", 59 * 1440)]


async def test_a_clock_set_back_is_refused_before_anything_is_asked(tape, lake_root):
    clock = ReplayClock(parse_time("2026-03-01T12:00"))
    async with ReplayExchange(tape, clock=clock) as twin:
        await run_backfill(lake_root, twin, START, END)
        before, asked = versions(lake_root), twin.stats.requests.copy()
        clock.set(parse_time("2026-03-01T10:00"))
        with pytest.raises(ClockRegressionError):
            await run_update(lake_root, twin)
        assert versions(lake_root) == before
        assert twin.stats.requests == asked


async def test_a_clock_set_back_is_refused(tape, lake_root):
    clock = ReplayClock(parse_time("2026-03-01T12:00"))
    async with ReplayExchange(tape, clock=clock) as twin:
        await run_backfill(lake_root, twin, START, END)
        before = versions(lake_root)
        clock.set(parse_time("2026-03-01T11:54"))
        with pytest.raises(ClockRegressionError, match="nothing was written"):
            await run_backfill(lake_root, twin, START, END, recheck=True)
        assert versions(lake_root, ("silver.bars", "ops.ledger")) == {
            name: before[name] for name in ("silver.bars", "ops.ledger")
        }
    assert SystemClock().known() > clock.known()
