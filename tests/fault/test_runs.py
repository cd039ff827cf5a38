"""ops.runs tells of every run, also of one that was killed, in one commit a run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from kernel_support import KNOWN, Kernel
from processes import child, killed

import lake
from contracts.errors import RequestError
from contracts.tables import RUNS
from contracts.time import SteppedClock
from flows.runs import recorded_run
from flows.work import open_work


def work_on(root):
    return open_work(str(root), clock=SteppedClock(KNOWN), origin="live")


def events(root):
    told = lake.open(root).scan(RUNS.name).collect()
    return sorted(told.select("command", "event").rows())


def begin_and_die(root):
    async def run():
        async with recorded_run(work_on(root), "update", {"venue": "binance"}):
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())
    sys.stdout.write("not reached")


async def test_a_run_is_one_commit_and_leaves_no_object(lake_root):
    async with recorded_run(work_on(lake_root), "backfill", {"a": 1}) as detail:
        detail["new"] = 3
        assert len(list((lake_root / "runs").iterdir())) == 1
    assert events(lake_root) == [("backfill", "started"), ("backfill", "succeeded")]
    assert list((lake_root / "runs").iterdir()) == []
    assert Kernel(lake_root).tables[RUNS.name].head().version == 1


async def test_the_next_run_notes_the_beginning_of_one_that_was_killed(lake_root):
    killed(child(Path(__file__), "begin_and_die", lake_root))
    async with recorded_run(work_on(lake_root), "backfill", {}):
        pass
    expected = [("backfill", "started"), ("backfill", "succeeded"), ("update", "started")]
    assert events(lake_root) == expected
    assert list((lake_root / "runs").iterdir()) == []


async def test_a_run_under_way_is_noted_once_though_another_ends_meanwhile(lake_root):
    async with recorded_run(work_on(lake_root), "backfill", {}):
        async with recorded_run(work_on(lake_root), "update", {}):
            pass
        assert ("backfill", "started") in events(lake_root)
    assert len(events(lake_root)) == 4


async def test_a_failure_is_told_with_its_code(lake_root):
    with pytest.raises(RequestError):
        async with recorded_run(work_on(lake_root), "backfill", {}):
            raise RequestError("nothing was asked", remedy="Ask")
    told = lake.open(lake_root).scan(RUNS.name).filter(event="failed").collect()
    assert told["detail"].to_list() == ["request: nothing was asked. Ask"]


async def test_what_is_no_beginning_of_a_run_stays_and_stops_nobody(lake_root):
    async with recorded_run(work_on(lake_root), "backfill", {}):
        (lake_root / "runs" / "note.json").write_text("{half")
    assert [each.name for each in (lake_root / "runs").iterdir()] == ["note.json"]
    assert len(events(lake_root)) == 2
