"""kill -9 before every storage operation of a backfill: the resumed run ends as if nobody died.

One process, the zygote, imports the venue's client once and forks a process for every run:
a run that dies costs its work and no imports.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path

import pytest
from kernel_support import assert_spans_sound
from path_support import contents, request_of
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
LANES = 2
# What a run imports when it comes to it, besides what this module imports.
PRELOADED = (
    "ccxt.async_support",
    "flows.venues.binance",
    "flows.venues.client",
    "numpy",
    "pandera.polars",
    "polars._utils.parquet",
)
LONGEST_RUN = 60


def run(base_url, root, *, at, recheck):
    """Backfill the tape's day, as a process of its own would do it."""
    with connected(Replaying(replay=base_url, replay_now=at)) as connection:
        work = open_work(
            str(root), clock=connection.clock, origin=connection.origin, settings=SETTINGS
        )
        asked = request_of(base_url, START, END, recheck=recheck)
        report = asyncio.run(backfill(work, asked))
        assert report.exit_code == 0, report.failures


def zygote():
    """Fork the runs that a line of stdin asks for, in lanes, and say when all have ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        jobs = json.loads(line)
        lanes = [_forked(partial(_walk, jobs[lane::LANES])) for lane in range(LANES)]
        ends = [os.waitpid(lane, 0)[1] for lane in lanes]
        sys.stdout.write(json.dumps(ends) + "\n")
        sys.stdout.flush()


def _forked(call):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        call()
        status = 0
    except BaseException:  # noqa: BLE001 - a fork never returns into its parent's stack
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _walk(jobs):
    """Let each job's run die where it names an operation, keep a copy, and let it run again."""
    for job in jobs:
        root, ends = Path(job["root"]), []
        if job["dies_before"]:
            ends.append(_ended(job, job["dies_before"]))
            shutil.copytree(root, f"{root}-dead", dirs_exist_ok=True)
        ends.append(_ended(job, -1))
        Path(f"{root}.ends").write_text(json.dumps(ends))


def _ended(job, dies_before):
    """Run in a fork; return the signal or, below zero, the exit code that it ended with."""
    return -os.waitstatus_to_exitcode(os.waitpid(_forked(partial(_run, job, dies_before)), 0)[1])


def _run(job, dies_before):
    signal.alarm(LONGEST_RUN)
    countdown = Countdown(dies_before)
    countdown.install(setattr)
    run(job["base_url"], job["root"], **job["asked"])
    Path(f"{job['root']}.operations").write_text(str(countdown.seen))


class Zygote:
    """The process that forks runs, seen from the tests."""

    def __init__(self, base_url):
        self.base_url = base_url
        here = Path(__file__).parent
        folders = [str(here), str(here.parent), str(here.parents[1])]
        code = f"import sys; sys.path[:0] = {folders!r}; import {Path(__file__).stem} as m"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}; m.zygote()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"POLARS_MAX_THREADS": "1"},
        )

    def jobs(self, points, asked):
        """Let a run die before each operation, by root, and run again; 0 is no death."""
        jobs = [
            {"base_url": self.base_url, "root": str(root), "asked": asked, "dies_before": number}
            for root, number in points.items()
        ]
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        assert json.loads(self.process.stdout.readline()) == [0] * LANES
        for root, number in points.items():
            ends = json.loads(Path(f"{root}.ends").read_text())
            assert ends == ([signal.SIGKILL, 0] if number else [0]), (root, ends)

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0


@pytest.fixture(scope="module")
def runs():
    with run_in_process(days=1, limits=False) as base_url:
        zygote = Zygote(base_url)
        yield zygote
        zygote.stop()


@pytest.fixture
def begun(runs, tmp_path):
    """Return what a recheck begins with: the day until before its revision."""
    root = tmp_path / "begun"
    runs.jobs({root: 0}, {"at": BEFORE_REVISION, "recheck": False})
    return root


def assert_killed_anywhere_nothing_differs(runs, folder, asked, *, start=None):
    def lake_for(name):
        if start is not None:
            shutil.copytree(start, folder / name)
        return folder / name

    whole = lake_for("whole")
    runs.jobs({whole: 0}, asked)
    expected = contents(whole)
    operations = int(Path(f"{whole}.operations").read_text())
    points = {lake_for(str(number)): number for number in range(1, operations + 1)}
    runs.jobs(points, asked)
    for root in points:
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


def test_a_backfill_killed_anywhere_and_run_again(runs, tmp_path):
    expected, operations = assert_killed_anywhere_nothing_differs(
        runs, tmp_path, {"at": AFTER, "recheck": False}
    )
    states = {row[5] for row in expected["ledger"]}
    assert states == {"present", "missing", "quarantined"}
    assert (len(expected["bars"]), len(expected["quarantine"])) == (1440 - 120 - 1, 1)
    assert 30 <= operations <= 60


def test_a_recheck_killed_anywhere_and_run_again(runs, begun, tmp_path):
    expected, operations = assert_killed_anywhere_nothing_differs(
        runs, tmp_path, {"at": AFTER, "recheck": True}, start=begun
    )
    assert len(expected["history"]) == len(expected["bars"]) + 1
    assert 20 <= operations <= 40
