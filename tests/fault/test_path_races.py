"""Several runs on one lake at once: no row doubled, none lost, one ledger."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from kernel_support import assert_spans_sound
from path_support import BTC, contents, request_of, run_backfill

import lake
from contracts.names import Venue
from contracts.tables import BARS, LEDGER, RESPONSES
from contracts.time import to_millis
from flows.backfill import Access, backfill, update
from flows.replay.clock import ReplayClock
from flows.replay.faults import FaultKind
from flows.replay.generated import GeneratedTape
from flows.replay.process import run_in_process
from flows.replay.server import ReplayExchange
from flows.snapshot import snapshot
from flows.work import open_work
from lake.settings import Settings

START, END = "2026-03-01", "2026-03-02"
BOTH = {"symbols": ("BTC/USDT", "ETH/USDT"), "timeframes": ("1m", "1h")}
ONE_PAGE = Settings(fsync=False, batch_pages=1)


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape(days=1)


@pytest.fixture(scope="module")
def alone(tape, tmp_path_factory):
    """Return what one run leaves that nobody disturbs."""
    root = tmp_path_factory.mktemp("alone") / "lake"

    async def fill():
        async with ReplayExchange(tape) as twin:
            await run_backfill(root, twin, START, END, **BOTH)

    asyncio.run(fill())
    return contents(root)


def opened(root, twin):
    """Open a lake as another process would: nothing is shared but the folder."""
    return open_work(str(root), clock=twin.clock, origin=twin.tape.origin, settings=ONE_PAGE)


def assert_no_row_twice(root):
    lk = lake.open(root)
    for spec in (BARS, LEDGER, RESPONSES):
        assert lk.scan(spec.name).select(spec.key).collect().is_unique().all(), spec.name


async def test_two_backfills_of_one_span(tape, alone, lake_root):
    async with ReplayExchange(tape, limits=False) as twin:
        asked = request_of(twin, START, END, **BOTH)
        reports = await asyncio.gather(
            *(backfill(opened(lake_root, twin), asked) for _ in range(2))
        )
    assert [report.exit_code for report in reports] == [0, 0]
    assert sum(report.new for report in reports) == len(alone["bars"])
    assert all(report.revised == 0 for report in reports)
    assert contents(lake_root) == alone
    assert_no_row_twice(lake_root)


def test_two_processes_backfill_one_span(alone, lake_root):
    settings = {"LAKE_BATCH_PAGES": "1", "LAKE_FSYNC": "false", "LAKE_ROOT": str(lake_root)}
    with run_in_process(days=1, limits=False) as base_url:
        command = [sys.executable, "-m", "flows.cli", "backfill", "--replay", base_url]
        command += ["--symbols", *BOTH["symbols"], "--timeframes", *BOTH["timeframes"]]
        command += ["--start", START, "--end", END, "--no-limits"]
        children = [
            subprocess.Popen(
                command,
                env=os.environ | settings,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for child in children:
            complaint = child.communicate(timeout=120)[1]
            assert child.returncode == 0, complaint
    assert contents(lake_root) == alone
    assert_no_row_twice(lake_root)


@pytest.mark.parametrize("number", range(3))
async def test_two_revisers_of_one_bar(tape, lake_root, number):
    """Two answers, two clocks half a minute apart: each is a version, whoever was first."""
    revision = tape.defects.revision
    asked = (START, "2026-03-01T11:00")
    behind = ReplayClock(revision.at - timedelta(seconds=20))
    ahead = ReplayClock(revision.at + timedelta(seconds=10))
    async with (
        ReplayExchange(tape, clock=behind, limits=False) as one,
        ReplayExchange(tape, clock=ahead, limits=False) as other,
    ):
        await run_backfill(lake_root, one, *asked)
        behind.step(timedelta(seconds=1))
        one.faults.arm(
            FaultKind.REVISED_BAR, endpoint="klines", open_millis=to_millis(revision.open_time)
        )
        revisers = [
            backfill(opened(lake_root, twin), request_of(twin, *asked, recheck=True))
            for twin in ((one, other), (other, one), (one, other))[number]
        ]
        reports = await asyncio.gather(*revisers)
    assert [(report.revised, report.new, report.exit_code) for report in reports] == [(1, 0, 0)] * 2
    history = lake.open(lake_root).bar_history(BTC, timeframe="1m").collect()
    assert_spans_sound(history)
    versions = history.filter(open_time=revision.open_time)
    assert versions.height == versions["close"].n_unique() == 3
    assert history.height == contents_height(lake_root) + 2
    assert_no_row_twice(lake_root)


def contents_height(root):
    return lake.open(root).scan(BARS.name).collect().height


async def test_two_that_bring_the_same_revision_revise_once(tape, lake_root):
    clock = ReplayClock(tape.defects.revision.at - timedelta(minutes=30))
    async with ReplayExchange(tape, clock=clock, limits=False) as twin:
        await run_backfill(lake_root, twin, START, END)
        clock.step(timedelta(hours=1))
        asked = request_of(twin, START, END, recheck=True)
        reports = await asyncio.gather(
            *(backfill(opened(lake_root, twin), asked) for _ in range(2))
        )
    assert sorted(report.revised for report in reports) == [0, 1]
    assert sum(report.new for report in reports) == 60
    history = lake.open(lake_root).bar_history(BTC, timeframe="1m").collect()
    assert history.height == contents_height(lake_root) + 1
    assert_spans_sound(history)
    assert_no_row_twice(lake_root)


async def test_a_backfill_an_update_and_snapshots_at_once(tape, alone, lake_root):
    clock = ReplayClock.at_end_of(tape)
    end = clock.known()
    clock.set(tape.span.start + timedelta(hours=6))
    async with ReplayExchange(tape, clock=clock, limits=False) as twin:
        await run_backfill(lake_root, twin, START, END, timeframes=("1m", "1h"))
        clock.set(end)
        writers = asyncio.gather(
            backfill(opened(lake_root, twin), request_of(twin, START, END, **BOTH)),
            update(opened(lake_root, twin), Access(Venue.BINANCE, twin.base_url, limit=False)),
        )
        work, ids = opened(lake_root, twin), {}
        while not writers.done():
            manifest = await snapshot(work)
            ids[manifest.snapshot_id] = manifest
        reports = await writers
    assert [report.exit_code for report in reports] == [0, 0]
    assert len(ids) >= 3, "the writers were done before a snapshot could race them"
    for name in ids:
        assert_what_is_claimed_is_there(lake.open(lake_root, snapshot=name, verify=True))
    assert_no_row_twice(lake_root)
    told = contents(lake_root)
    values = [row[:-1] for row in told["bars"]]
    assert values == [row[:-1] for row in alone["bars"]]
    assert told["ledger"] == alone["ledger"]


def assert_what_is_claimed_is_there(lk):
    claimed = lk.ledger().filter(state="present")
    bars = lk.scan(BARS.name).collect()
    for span in claimed.iter_rows(named=True):
        stream = bars.filter(instrument_id=span["instrument_id"], timeframe=span["timeframe"])[
            "open_time"
        ]
        found = stream.is_between(span["span_start"], span["span_end"], closed="left").sum()
        step = timedelta(minutes={"1m": 1, "1h": 60}[span["timeframe"]])
        assert found == (span["span_end"] - span["span_start"]) // step
