"""kill -9 before every storage operation of a backfill: the resumed run ends as if nobody died."""

from __future__ import annotations

import asyncio
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kernel_support import assert_spans_sound
from path_support import contents, request_of
from processes import child, finished, killed
from test_crash_points import Countdown

import lake
from contracts.tables import BARS, QUARANTINE
from flows.backfill import backfill
from flows.cli.connect import connected
from flows.cli.options import Replaying
from flows.replay.process import run_in_process
from flows.work import open_work
from lake.settings import Settings

START, END = "2026-03-01", "2026-03-02"
SETTINGS = Settings(fsync=False, batch_pages=1)
# The generated day: no bars from 7:00 to 9:00, a bad row at 13:12, and the bar of 9:07 is
# another one from noon on.
BEFORE_REVISION = "2026-03-01T11:30"
AFTER = "2026-03-02T00:01"
# What a run imports when it comes to it; the process that forks runs imports it once.
PRELOADED = (
    "ccxt.async_support",
    "flows.venues.binance",
    "flows.venues.client",
    "pandera.backends.polars.builtin_checks",
)
NEVER = -1


def run_and_die(base_url, root, at, recheck, left):
    """Backfill the tape's day and die before operation ``left``; print how many there were."""
    countdown = Countdown(int(left))
    countdown.install(setattr)
    with connected(Replaying(replay=base_url, replay_now=at)) as connection:
        work = open_work(root, clock=connection.clock, origin=connection.origin, settings=SETTINGS)
        asked = request_of(base_url, START, END, recheck=bool(recheck))
        report = asyncio.run(backfill(work, asked))
        assert report.exit_code == 0, report.failures
    sys.stdout.write(str(countdown.seen))


@pytest.fixture(scope="module")
def twin():
    with run_in_process(days=1, limits=False) as base_url:
        yield base_url


def started(twin, root, asked, left=NEVER):
    return child(Path(__file__), "run_and_die", twin, root, *asked, left)


def assert_killed_anywhere_nothing_differs(twin, folder, asked, *, start=None):
    def lake_for(name):
        if start is not None:
            shutil.copytree(start, folder / name)
        return folder / name

    whole = lake_for("whole")
    operations = int(finished(started(twin, whole, asked)))
    expected = contents(whole)

    def crash(left):
        root = lake_for(str(left))
        killed(started(twin, root, asked, left))
        shutil.copytree(root, f"{root}-dead", dirs_exist_ok=True)
        finished(started(twin, root, asked))
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, operations + 1)))
    for root in roots:
        assert_sound(Path(f"{root}-dead"), expected)
        assert contents(root) == expected, root.name
    return expected, operations


def assert_sound(root, expected):
    """Check what a reader meets between the crash and the second run.

    What the ledger claims is there, and nothing is there that the whole run would not bring.
    """
    if not (root / "lake.json").exists():
        return
    lk = lake.open(root)
    bars = lk.scan(BARS.name).collect()
    if not bars.is_empty():
        history = lk.bar_history("*", timeframe="1m").collect()
        assert_spans_sound(history)
        assert set(history.drop("known_to").rows()) <= {row[:-1] for row in expected["history"]}
    for state, found in (
        ("present", bars["open_time"]),
        ("quarantined", lk.scan(QUARANTINE.name).collect()["event_time"]),
    ):
        for span in lk.ledger().filter(state=state).iter_rows(named=True):
            inside = found.is_between(span["span_start"], span["span_end"], closed="left")
            assert inside.sum() == (span["span_end"] - span["span_start"]).total_seconds() / 60


def test_a_backfill_killed_anywhere_and_run_again(twin, tmp_path):
    expected, operations = assert_killed_anywhere_nothing_differs(twin, tmp_path, (AFTER, ""))
    states = {row[5] for row in expected["ledger"]}
    assert states == {"present", "missing", "quarantined"}
    assert (len(expected["bars"]), len(expected["quarantine"])) == (1440 - 120 - 1, 1)
    assert 30 <= operations <= 60


def test_a_recheck_killed_anywhere_and_run_again(twin, tmp_path):
    begun = tmp_path / "begun"
    finished(started(twin, begun, (BEFORE_REVISION, "")))
    expected, operations = assert_killed_anywhere_nothing_differs(
        twin, tmp_path, (AFTER, "recheck"), start=begun
    )
    assert len(expected["history"]) == len(expected["bars"]) + 1
    assert 20 <= operations <= 40
