"""What each operation asks of a bucket, counted by a proxy, printed and bounded."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kernel_support import (
    BTC,
    ETH,
    Kernel,
    Row,
    audits_of,
    quarantine_of,
    response_of,
    seal_early,
    series,
)
from path_support import run_backfill, run_update
from s3_proxy import FaultyGateway

from contracts.time import parse_time
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from lake.diff import diff_snapshots
from lake.export import export_snapshot, import_snapshots
from lake.labels import resolve_snapshot, set_label
from lake.pins import confirm_unpin, pin, request_unpin
from lake.store import Store
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


def test_the_requests_of_what_is_done_with_snapshots_are_few(gateway, s3_root, monkeypatch):
    seal_early(monkeypatch, 10, fan_in=100)
    kernel = Kernel(s3_root)
    kernel.land(response_of(b"[1]"))
    for hour in range(6):
        minutes = range(hour * 60, hour * 60 + 60)
        kernel.publish([*series(minutes), *series(minutes, instrument=ETH)])
        kernel.observe(hour * 60, hour * 60 + 60)
        kernel.step(hours=1)
    first = kernel.snapshot()
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot()
    files = len(first.files)
    changed = len(first.files.keys() ^ second.files.keys())
    gateway.clear()

    set_label(kernel.store, kernel.clock, "paper", first.snapshot_id)
    told(gateway, "set a label", 4)
    set_label(kernel.store, kernel.clock, "paper", second.snapshot_id)
    told(gateway, "move a label", 4)
    assert resolve_snapshot(kernel.store, "paper").snapshot_id == second.snapshot_id
    told(gateway, "find a snapshot by its label", 4)

    rows = diff_snapshots(kernel.store, first, second, rows=True).counts
    assert rows == {"added": 1, "revised": 1, "removed": 0}
    told(gateway, f"diff of snapshots that differ by {changed} files, with rows", 4 + 2 * changed)
    verify(kernel.store, first, level="deep")
    told(gateway, f"verify {files} files, deep", 3 * files + 12)

    asked = request_unpin(kernel.tables, first, why="x")
    told(gateway, "ask for an unpin, of 2 pinned", 30)
    confirm_unpin(kernel.tables, first, token=asked.token)
    told(gateway, "confirm it", 12)
    pin(kernel.tables, first)
    told(gateway, f"pin {files} files again", 12 + 2 * files)

    there, back = Store(f"{s3_root}-out"), Store(f"{s3_root}-back")
    assert export_snapshot(kernel.store, first, there, kernel.clock).copied == files
    told(gateway, f"export of {files} files to a new place", 24 + 3 * files)
    assert export_snapshot(kernel.store, first, there, kernel.clock).copied == 0
    told(gateway, "the same export again", 24 + 2 * files)
    (done,) = import_snapshots(there, back, kernel.clock)
    assert done.copied == files
    told(gateway, f"import of {files} files into a new lake", 24 + 3 * files)


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
