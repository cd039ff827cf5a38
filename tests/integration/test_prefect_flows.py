"""The deployed flows under a real Prefect server: runs, artifacts, failures, deployments."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
)
from prefect.client.schemas.sorting import ArtifactSort
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH
from prefect.settings.context import temporary_settings
from replay_support import bars_frame, entry, write_tape

import lake
from contracts.errors import AuditError, VenueRejectedError, VenueUnavailableError
from contracts.names import Venue
from contracts.tables import TABLES
from flows import deployed
from flows.deployed import RETRIES
from flows.replay.process import open_tape
from lake.root import init_lake
from lake.store import Store
from lake.tables import Table

# Prefect leaves closing its own connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.timeout(400),
]

_START_SECONDS = 120
_BTC, _ETH = "BTC-USDT-SPOT.BINANCE", "ETH-USDT-SPOT.BINANCE"
_DAY = {
    "start": "2026-03-01",
    "replay": "generated",
    "replay_now": "2026-03-02T00:00:10Z",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of the module's server and of what talks to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return own | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "LAKE_ROOT": str(home / "lake"),
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="module", autouse=True)
def server(environment):
    """A Prefect server of the module's own; flows of this process report to it."""
    url, home = environment["PREFECT_API_URL"], environment["PREFECT_HOME"]
    port = url.removesuffix("/api").rpartition(":")[2]
    start = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    command = [sys.executable, "-m", "prefect", *start]
    path = Path(home, "server.log")
    with (
        path.open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as child,
    ):
        try:
            _wait_until_healthy(url, child, path)
            updates = {
                PREFECT_API_URL: url,
                PREFECT_HOME: home,
                PREFECT_LOCAL_STORAGE_PATH: f"{home}/storage",
            }
            with temporary_settings(updates):
                yield url
                asyncio.run(_drain())
                gc.collect()
        finally:
            child.terminate()
            child.wait(30)


async def _drain():
    """Send what logs and events still wait, while there is a server to take them."""
    await APILogWorker.instance().drain()
    await EventsWorker.drain_all()


def _wait_until_healthy(url, child, log):
    for _ in range(_START_SECONDS * 5):
        assert child.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                assert answer.read() == b"true"
                return
        except urllib.error.URLError:
            time.sleep(0.2)
    pytest.fail(f"no server after {_START_SECONDS} s: {log.read_text()}")


def _versions(root) -> dict[str, int]:
    store, clock = Store(root), lake.SystemClock()
    names = [name for name in TABLES if name != "ops.runs"]
    return {name: Table(store, TABLES[name], clock).head().version for name in names}


async def _artifact(key) -> str:
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.CREATED_DESC,
        )
    assert found
    return found[0].data


def _run(flow, **parameters):
    return asyncio.run(flow(**parameters, return_state=True))


def test_backfill_update_and_snapshot_run_under_prefect(lake_root):
    asked = {**_DAY, "venue": "binance", "symbols": ["BTC/USDT"], "timeframes": ["1m", "1h"]}
    first = _run(deployed.backfill, root=str(lake_root), **asked)

    assert first.is_completed(), first.message
    counts = asyncio.run(first.aresult())
    assert (counts["streams"], counts["failed"], counts["new"]) == (2, 0, 1440 + 24)
    bars = lake.open(lake_root).bars(_BTC, timeframe="1m").collect()
    assert bars.height == 1440
    assert bars["open_time"].is_sorted()
    text = asyncio.run(_artifact("backfill-binance"))
    assert "| new | 1464 |" in text
    assert f"| {_BTC} | 1m | present | 1 | 24.0 | 2026-03-02T00:00Z |" in text

    before = _versions(lake_root)
    again = _run(deployed.backfill, root=str(lake_root), **asked)
    assert again.is_completed(), again.message
    assert asyncio.run(again.aresult())["pages"] == 0
    assert _versions(lake_root) == before

    update = {"venue": "binance", "replay": "generated", "replay_now": "2026-03-02T03:00:10Z"}
    updated = _run(deployed.update, root=str(lake_root), **update)
    assert updated.is_completed(), updated.message
    assert asyncio.run(updated.aresult())["new"] == 180 + 3
    assert "| new | 183 |" in asyncio.run(_artifact("update-binance"))

    pinned = _run(deployed.snapshot, root=str(lake_root), label="daily")
    snapshot_id = asyncio.run(pinned.aresult())
    hours = lake.open(lake_root, snapshot=snapshot_id).bars(_BTC, timeframe="1h")
    assert hours.collect().height == 27
    assert snapshot_id in asyncio.run(_artifact("snapshot"))

    kept = _versions(lake_root)
    maintained = _run(deployed.maintain, root=str(lake_root))
    assert maintained.is_completed(), maintained.message
    assert "# Maintenance" in asyncio.run(_artifact("maintain"))
    assert _versions(lake_root)["silver.bars"] == kept["silver.bars"]
    assert hours.collect().height == 27


def test_a_failed_stream_fails_the_run_and_leaves_the_others(lake_root, tmp_path):
    sound = bars_frame("2026-03-01", 120)
    broken = sound.with_columns(high=pl.col("low") - 1)
    tape = write_tape(
        tmp_path / "tape", entry("btc.parquet"), entry("eth.parquet", symbol="ETH/USDT")
    )
    sound.write_parquet(tape / "btc.parquet")
    broken.write_parquet(tape / "eth.parquet")
    kept = deployed.backfill.with_options(persist_result=True)
    ended = _run(
        kept,
        venue="binance",
        symbols=["BTC/USDT", "ETH/USDT"],
        timeframes=["1m"],
        start="2026-03-01",
        root=str(lake_root),
        replay=str(tape),
    )

    assert ended.is_failed()
    assert f"AuditError: {_ETH} 1m" in ended.message
    stored = asyncio.run(_stored_result(ended.state_details.flow_run_id))
    assert type(stored) is AuditError
    assert (stored.code, stored.exit_code, stored.stream) == ("data.audit", 3, f"{_ETH} 1m")
    assert lake.open(lake_root).bars(_BTC, timeframe="1m").collect().height == 120
    text = asyncio.run(_artifact("backfill-binance"))
    assert "| failed | 1 |" in text
    assert f"| {_ETH} 1m | " in text
    assert "AuditError (data.audit)" in text


async def _stored_result(flow_run_id):
    async with get_client() as client:
        read = await client.read_flow_run(flow_run_id)
    return await read.state.aresult(raise_on_failure=False)


def test_a_clock_without_a_replay_is_refused(lake_root):
    now = {"venue": "binance", "replay_now": "2026-03-02"}
    ended = _run(deployed.update, root=str(lake_root), **now)
    assert ended.is_failed()
    assert "RequestError: replay_now sets the clock of a replay" in ended.message
    assert not lake_root.exists()


def test_a_wrong_setting_is_named(lake_root, monkeypatch):
    monkeypatch.setenv("LAKE_CONCURRENCY", "none")
    ended = _run(deployed.snapshot, root=str(lake_root))
    assert ended.is_failed()
    assert "SettingsError: LAKE_CONCURRENCY is 'none'" in ended.message


def test_a_run_that_cannot_begin_says_why(lake_root):
    asked = {"venue": "binance", "root": str(lake_root), "replay": "generated"}
    ended = _run(deployed.update, **asked)
    assert "LakeNotFoundError" in ended.message
    assert not lake_root.exists()
    init_lake(Store(lake_root), origin=open_tape("generated").origin)
    ended = _run(deployed.update, **asked)
    assert ended.is_failed()
    assert "UnknownStreamError" in ended.message
    assert "request.unknown_stream" in asyncio.run(_artifact("update-binance"))


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (VenueUnavailableError("the venue hangs", remedy="Wait"), 3),
        (VenueRejectedError("the venue refuses", remedy="Ask otherwise"), 1),
        (OSError("not ours"), 1),
    ],
)
def test_only_our_retryable_errors_are_retried(error, attempts):
    tried = []

    @task(**RETRIES | {"retry_delay_seconds": 0, "retries": 2})
    async def fails():
        tried.append(error)
        raise error

    @flow
    async def failing():
        await fails()

    assert _run(failing).is_failed()
    assert len(tried) == attempts


def test_retries_back_off_with_jitter():
    delays = deployed._backfill.retry_delay_seconds
    assert delays == [15, 30, 60, 120]
    assert deployed._update.retry_delay_seconds == delays
    assert deployed._snapshot.retry_jitter_factor == 0.5


def test_a_run_waits_while_another_asks_the_venue(lake_root):
    asked = {**_DAY, "venue": "binance", "symbols": ["BTC/USDT"], "timeframes": ["1h"]}

    @flow
    async def waits():
        async with deployed._venue_slot(Venue.BINANCE):
            run = asyncio.create_task(deployed.backfill(root=str(lake_root), **asked))
            await asyncio.sleep(2)
            assert not lake_root.exists()
        await run

    ended = _run(waits)
    assert ended.is_completed(), ended.message
    assert lake.open(lake_root).bars(_BTC, timeframe="1h").collect().height == 24


def test_prefect_yaml_deploys_schedules_and_a_worker_runs_it(environment, project, lake_root):
    def prefect(*arguments):
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "process", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    found = asyncio.run(_deployments())
    assert sorted(found) == ["backfill", "maintain", "snapshot", "update"]
    for deployment in found.values():
        [step] = deployment.pull_steps
        [(kind, at)] = step.items()
        assert kind == "prefect.deployments.steps.set_working_directory"
        assert at["directory"] == str(project)
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.work_pool_name == "process"
    assert found["backfill"].schedules == []
    [hourly] = found["update"].schedules
    assert (hourly.schedule.cron, hourly.schedule.timezone) == ("1 * * * *", "UTC")
    [daily] = found["snapshot"].schedules
    assert daily.schedule.timezone == "UTC"

    runs = asyncio.run(_scheduled(found["update"].id))
    assert len(runs) >= 2
    assert {run.expected_start_time.minute for run in runs} == {1}
    assert {run.expected_start_time.utcoffset() for run in runs} == {timedelta(0)}

    prefect("deployment", "schedule", "pause", "--all")
    assert asyncio.run(_scheduled(found["update"].id, patience=1)) == []
    asked = {**_DAY, "symbols": ["BTC/USDT"], "timeframes": ["1h"], "root": str(lake_root)}
    run_id = asyncio.run(_ask_for_a_run(found["backfill"].id, asked))
    prefect("worker", "start", "--pool", "process", "--run-once")
    ended = asyncio.run(_read_run(run_id))
    assert ended.state.is_completed(), ended.state.message
    assert lake.open(lake_root).bars(_BTC, timeframe="1h").collect().height == 24


async def _deployments():
    async with get_client() as client:
        return {each.name: each for each in await client.read_deployments()}


async def _scheduled(deployment_id, patience=300):
    """Wait for the server's scheduler: on a wrong SQLAlchemy it never schedules anything."""
    wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]))
    async with get_client() as client:
        for _ in range(patience):
            runs = await client.read_flow_runs(flow_run_filter=wanted)
            if runs:
                return runs
            await asyncio.sleep(0.2)
    return []


async def _ask_for_a_run(deployment_id, parameters):
    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
    return run.id


async def _read_run(run_id):
    async with get_client() as client:
        return await client.read_flow_run(run_id)
