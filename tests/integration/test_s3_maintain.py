"""Maintenance and the doctor in a real bucket."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from kernel_support import BTC, ETH, KNOWN, Kernel, Row, response_of, seal_early, series
from s3_proxy import FaultyGateway

from contracts.tables import BARS, DELETIONS, RESPONSES
from contracts.time import SystemClock
from flows.cli.entry import main
from flows.maintain import PARTS, MaintainRequest, maintain
from flows.work import Progress, Work
from lake.doctor import NEEDS_YOU, examine
from lake.leases import lease
from lake.pins import confirm_unpin, request_unpin
from lake.reach import PinnedFiles, head_files
from lake.settings import Settings
from lake.store import Store
from lake.verify import verify

ZERO = timedelta(0)


def maintained(kernel, *, only=PARTS, apply=True, **settings):
    told = Settings(fsync=False, **settings)
    run = Work(kernel.tables, kernel.clock, f"run-{time.monotonic_ns()}", told, Progress())
    return asyncio.run(maintain(run, MaintainRequest(apply, tuple(only), ZERO)))


@pytest.fixture
def kernel(s3_root, monkeypatch):
    seal_early(monkeypatch, 10, fan_in=100, series=40)
    kernel = Kernel(s3_root)
    kernel.land(response_of(b"[1]"))
    for first in range(0, 60, 12):
        kernel.publish(series(range(first, first + 12)) + series([first], instrument=ETH))
    kernel.snapshot()
    kernel.step(minutes=1)
    kernel.publish([Row(3, 200.0)])
    kernel.step(minutes=1)
    kernel.publish([Row(3, 201.0)])
    kernel.clock.step(KNOWN + timedelta(days=365) - kernel.clock.known())
    return kernel


def data(kernel, spec):
    return {path for path in kernel.store.sizes(spec.path) if "/part-" in path}


def test_maintenance_in_a_bucket_keeps_rows_and_pins_and_deletes_the_rest(kernel):
    before = kernel.rows(BARS)
    stood = data(kernel, BARS)
    assert maintained(kernel, apply=False).actions
    assert data(kernel, BARS) == stood
    report = maintained(kernel, bronze_days=20)
    assert {"retention", "compact", "vacuum"} <= {each.part for each in report.actions}
    assert kernel.rows(BARS).equals(before)
    head = head_files(kernel.tables)
    needed = head.keys() | PinnedFiles(kernel.store).paths()
    for spec in (BARS, RESPONSES):
        assert data(kernel, spec) == {path for path in needed if path.startswith(f"{spec.path}/")}
    files = kernel.tables[BARS.name].head().files
    assert sorted(entry.low["instrument_id"] for entry in files) == [BTC, ETH]
    gone = stood - data(kernel, BARS)
    assert gone
    assert gone <= set(kernel.rows(DELETIONS)["path"])
    (name,) = kernel.lake().snapshots()["snapshot_id"]
    manifest = kernel.lake(snapshot=name).manifest
    assert verify(kernel.store, manifest, level="deep").files

    options = kernel.store.options
    uri = kernel.tables[BARS.name].uri
    told = pl.scan_delta(uri, storage_options=kernel.store.scan_options).select(before.columns)
    assert told.sort(BARS.key).collect().equals(before)
    assert DeltaTable(uri, storage_options=options).count() == before.height

    asked = request_unpin(kernel.tables, manifest, why="done")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    maintained(kernel, only=["vacuum"])
    assert data(kernel, BARS) == {f"{BARS.path}/{entry.path}" for entry in files}
    assert data(kernel, RESPONSES) == set()


def test_a_lease_holds_up_deletion_in_a_bucket(kernel):
    stood = data(kernel, BARS)
    with lease(kernel.store, kernel.clock, "import"):
        assert maintained(kernel, only=["vacuum"]).actions == []
    assert data(kernel, BARS) == stood
    assert maintained(kernel, only=["vacuum"]).actions
    assert not kernel.store.sizes("leases")


def test_the_doctor_finds_a_bucket_sound_and_names_what_is_missing(kernel, capsys):
    findings = examine(kernel.store, SystemClock())
    assert [each for each in findings if each.verdict == NEEDS_YOU] == []
    probed = next(each for each in findings if each.check == "store")
    assert "8 writers" in probed.found
    assert not kernel.store.sizes("probes")
    (path,) = data(kernel, RESPONSES)
    kernel.store.delete(path)
    findings = examine(Store(kernel.store.uri), SystemClock())
    told = [(each.check, each.code) for each in findings if each.verdict == NEEDS_YOU]
    code = "storage.snapshot_incomplete"
    assert told == [("files", code), ("snapshots", code)]
    assert main(["doctor", "--root", kernel.store.uri, "--format", "json"]) == 5
    assert "tidemark-secret" not in capsys.readouterr().out


def test_what_maintenance_and_the_doctor_ask_of_a_bucket_is_bounded(ceph, kernel, monkeypatch):
    with FaultyGateway(ceph.url) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.url)
        proxied = Kernel(kernel.store.uri, known=kernel.clock.known())
        gateway.clear()
        maintained(proxied, apply=False)
        told(gateway, "lake maintain, a dry run", 120)
        report = maintained(proxied)
        objects = sum(each.files for each in report.actions)
        told(gateway, f"lake maintain --apply, {objects} objects", 200 + 6 * objects)
        monkeypatch.setattr("lake.doctor.FULL", (2 << 10,) * 2)
        examine(Store(kernel.store.uri), SystemClock())
        told(gateway, "lake doctor, without its probe of the store", 200)


def told(gateway, what, most):
    """Print what was asked since the last call, check its bound, and begin anew."""
    asked = sum(gateway.counts.values())
    kinds = ", ".join(f"{count} {name}" for name, count in gateway.counts.most_common())
    print(f"{what}: {asked} requests ({kinds})")  # noqa: T201 - the figures are what is asked for
    assert asked <= most, f"{what}: {asked} requests, at most {most}"
    gateway.clear()
