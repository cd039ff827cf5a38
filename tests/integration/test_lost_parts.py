"""Parts of a lake that are lost are told, and maintenance takes nothing with them."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from kernel_support import KNOWN, Kernel, Row, series

from contracts.errors import (
    LockedRunError,
    SettingsError,
    SnapshotIncompleteError,
    TornLogError,
)
from contracts.tables import BARS
from flows.work import open_work
from lake.doctor import NEEDS_YOU, examine
from lake.export import export_snapshot, import_snapshots
from lake.lockfile import make_lock, write_lock
from lake.manifest import manifest_path
from lake.pins import confirm_unpin, is_pinned, pin, request_unpin
from lake.settings import Settings
from lake.store import Store
from lake.vacuum import Rules, sweep

NOW = Rules(timedelta(0), lease_grace=timedelta(0))


@pytest.fixture
def kernel(tmp_path):
    kernel = Kernel(tmp_path / "lake")
    for first in range(0, 30, 10):
        kernel.publish(series(range(first, first + 10)))
    kernel.observe(0, 30)
    kernel.snapshot(label="paper")
    kernel.publish([Row(3, 200.0)])
    return kernel


def files(kernel):
    return set(kernel.root.rglob("part-*.parquet"))


def swept(kernel):
    sweep(Kernel(kernel.root).tables, NOW, run_id="test")


def needing(kernel):
    store = Store(kernel.root, fsync=False)
    return [each.found for each in examine(store, kernel.clock) if each.verdict == NEEDS_YOU]


def test_commits_that_are_gone_stop_every_deletion(kernel):
    log = kernel.root / BARS.path / "_delta_log"
    for version in (2, 3, 4):
        (log / f"{version:020d}.json").unlink()
    before = files(kernel)
    with pytest.raises(TornLogError, match="newer commits are gone"):
        swept(kernel)
    assert files(kernel) == before
    assert any("newer commits are gone" in found for found in needing(kernel))


def test_all_logs_gone_stop_every_deletion(kernel):
    for log in list(kernel.root.rglob("_delta_log")):
        shutil.rmtree(log)
    before = files(kernel)
    with pytest.raises(TornLogError):
        swept(kernel)
    assert files(kernel) == before


def test_a_manifest_that_is_gone_and_named_by_a_label_stops_every_deletion(kernel):
    snapshot_id = kernel.lake(snapshot="paper").snapshot_id
    (kernel.root / manifest_path(snapshot_id)).unlink()
    before = files(kernel)
    with pytest.raises(SnapshotIncompleteError, match="label 'paper'"):
        swept(kernel)
    assert files(kernel) == before


def test_a_manifest_that_is_gone_and_was_pinned_again_stops_every_deletion(kernel):
    manifest = kernel.snapshot()
    request_unpin(kernel.tables, manifest, why="room")
    pin(kernel.tables, manifest)
    kernel.publish([Row(3, 300.0)])
    (kernel.root / manifest_path(manifest.snapshot_id)).unlink()
    before = files(kernel)
    with pytest.raises(SnapshotIncompleteError, match="its pin names it"):
        swept(kernel)
    assert files(kernel) == before
    assert any(found.startswith("A pin names") for found in needing(kernel))


def exported(kernel, root):
    target = Store(root, fsync=False)
    manifest = kernel.lake(snapshot="paper").manifest
    export_snapshot(kernel.store, manifest, target, kernel.clock)
    return target, manifest


def test_an_export_is_not_maintained(kernel, tmp_path):
    target, _ = exported(kernel, tmp_path / "export")
    with pytest.raises(SettingsError, match="exported snapshots only"):
        open_work(str(tmp_path / "export"), clock=kernel.clock, origin=None, settings=Settings())
    told = [each.found for each in examine(target, kernel.clock)]
    assert any("an export" in found for found in told)


def test_an_import_pins_again_what_was_given_up(kernel, tmp_path):
    target, manifest = exported(kernel, tmp_path / "export")
    asked = request_unpin(kernel.tables, manifest, why="test")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    import_snapshots(target, kernel.store, kernel.clock)
    assert is_pinned(kernel.store, manifest.snapshot_id)
    swept(kernel)
    assert kernel.lake(snapshot="paper", verify=True).scan(BARS.name).collect().height == 30


def test_a_locked_run_compares_and_fetches_nothing(kernel, tmp_path, monkeypatch):
    lk = kernel.lake(snapshot="paper")
    lock = make_lock(
        kernel.store, lk.manifest, root=str(kernel.root), queries={}, clock=kernel.clock
    )
    write_lock(lock, tmp_path / "lake.lock")
    kernel.clock.set(KNOWN + timedelta(hours=1))
    later = kernel.snapshot().snapshot_id
    monkeypatch.setenv("LAKE_LOCK", str(tmp_path / "lake.lock"))
    with pytest.raises(LockedRunError):
        lk.diff(later)
    with pytest.raises(LockedRunError):
        open_work(str(kernel.root), clock=kernel.clock, origin=None, settings=Settings())
