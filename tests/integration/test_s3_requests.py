"""What each operation asks of a bucket, counted by a proxy, printed and bounded."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kernel_support import BTC, ETH, Kernel, audits_of, quarantine_of, response_of, series
from path_support import run_backfill, run_update
from s3_proxy import FaultyGateway

from contracts.time import parse_time
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from lake.verify import verify

HOURS = 24
UPDATES = 12


@pytest.fixture
def gateway(ceph, s3_root, monkeypatch):  # noqa: ARG001 - the proxy comes after the environment
    with FaultyGateway(ceph.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def told(gateway, what, most):
    """Print what was asked since the last call, check its bound, and begin anew."""
    asked = sum(gateway.counts.values())
    kinds = ", ".join(f"{count} {name}" for name, count in gateway.counts.most_common())
    print(f"{what}: {asked} requests ({kinds})")  # noqa: T201 - the figures are what is asked for
    assert asked <= most, f"{what}: {asked} requests, at most {most}"
    gateway.clear()


def test_the_requests_of_each_operation_are_few(gateway, s3_root):
    kernel = Kernel(s3_root)
    told(gateway, "make a lake in a bucket", 60)
    kernel.land(response_of(b"[1]"))
    kernel.quarantine(quarantine_of([1]))
    kernel.audit(audits_of(["closed"]))
    for hour in range(HOURS):
        minutes = range(hour * 60, hour * 60 + 60)
        kernel.publish([*series(minutes), *series(minutes, instrument=ETH)])
        kernel.observe(hour * 60, hour * 60 + 60)
        kernel.step(hours=1)
    files = sum(len(view.files) for view in kernel.tables.views(list(kernel.versions())).values())
    gateway.clear()

    minutes = range(HOURS * 60, HOURS * 60 + 60)
    kernel.publish(series(minutes))
    told(gateway, "publish an hour, tables open", 24)
    kernel.publish(series(minutes))
    told(gateway, "publish the same again", 16)
    kernel.observe(HOURS * 60, HOURS * 60 + 60)
    told(gateway, "record it in the ledger", 24)

    manifest = kernel.snapshot()
    told(gateway, f"create a snapshot of {files} files, tables open", 60 + 2 * files)
    assert kernel.snapshot().snapshot_id == manifest.snapshot_id
    told(gateway, "create the same snapshot again", 60 + files)

    lk = kernel.lake(snapshot=manifest.snapshot_id)
    told(gateway, "open at a snapshot", 4)
    one_day = {"timeframe": "1m", "start": "2026-03-24", "end": "2026-03-25"}
    assert lk.bars(BTC, **one_day).collect().height == HOURS * 60
    told(gateway, "read a day of bars at a snapshot", 20)
    assert kernel.lake().bars(BTC, **one_day).collect().height == HOURS * 60
    told(gateway, "open and read a day of bars at the head", 90)
    verify(kernel.store, manifest, level="quick")
    told(gateway, f"verify {files} files, quick", files + 12)
    verify(kernel.store, manifest)
    told(gateway, f"verify {files} files, by SHA-256", 2 * files + 12)


async def test_the_requests_of_an_hourly_update_do_not_grow(gateway, s3_root):
    clock = ReplayClock(parse_time("2026-03-01T06:00:30"))
    async with ReplayExchange(GeneratedTape(days=2), clock=clock) as twin:
        pairs = {"symbols": ("BTC/USDT", "ETH/USDT"), "timeframes": ("1m",)}
        await run_backfill(s3_root, twin, "2026-03-01", "2026-03-03", **pairs)
        asked = []
        for _ in range(UPDATES):
            clock.step(timedelta(hours=1))
            gateway.clear()
            await run_update(s3_root, twin)
            asked.append(sum(gateway.counts.values()))
            told(gateway, "hourly update of two streams, tables opened anew", 340)
    # Commits are read from the last checkpoint on, which each tenth commit makes.
    assert min(asked[9:]) < max(asked[:9])
