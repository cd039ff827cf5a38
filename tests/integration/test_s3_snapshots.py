"""Labels, pins, diffs, exports and imports in a real bucket, as in a folder."""

from __future__ import annotations

import pytest
from kernel_support import BTC, Kernel, Row, response_of, series

import lake
from contracts.errors import RequestError, SnapshotInUseError, UnknownSnapshotError
from contracts.tables import BARS
from contracts.time import SystemClock
from lake.diff import diff_snapshots
from lake.export import export_snapshot, import_snapshots
from lake.labels import every_label
from lake.locks import register, release
from lake.manifest import load_manifest
from lake.pins import confirm_unpin, is_pinned, pin, pin_events, request_unpin
from lake.store import Store
from lake.verify import verify

CLOCK = SystemClock()
LOCK = "b" * 64


def filled(root):
    kernel = Kernel(root)
    kernel.land(response_of(b"[1]"))
    kernel.publish(series(range(20)))
    kernel.observe(0, 20)
    return kernel


def test_labels_pins_locks_and_diffs_hold_in_a_bucket(s3_root):
    kernel = filled(s3_root)
    first = kernel.snapshot(label="paper")
    kernel.step(hours=1)
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot(label="paper")
    assert [label.previous for label in every_label(kernel.store)] == [first.snapshot_id]
    assert kernel.lake(snapshot="paper").snapshot_id == second.snapshot_id
    assert kernel.lake(snapshot=first.snapshot_id[:-1]).snapshot_id == first.snapshot_id
    with pytest.raises(UnknownSnapshotError, match="Did you mean paper"):
        kernel.lake(snapshot="papers")
    diff = diff_snapshots(kernel.store, first, second, rows=True)
    assert diff.counts == {"added": 1, "revised": 1, "removed": 0}
    assert diff.rows[BARS.name]["new_close"].to_list() == [9.0]

    register(kernel.store, CLOCK, snapshot_id=first.snapshot_id, lock_id=LOCK)
    with pytest.raises(SnapshotInUseError):
        request_unpin(kernel.tables, first, why="x")
    assert release(kernel.store, LOCK)
    asked = request_unpin(kernel.tables, first, why="x")
    assert asked.reach.files == 1
    confirm_unpin(kernel.tables, first, token=asked.token)
    assert not is_pinned(kernel.store, first.snapshot_id)
    pin(kernel.tables, first)
    assert [each.event.value for each in pin_events(kernel.store, first.snapshot_id)] == [
        "unpin_requested", "unpinned", "pinned",
    ]  # fmt: skip
    assert kernel.snapshot(label="paper").snapshot_id == second.snapshot_id


def test_a_snapshot_goes_from_a_folder_to_a_bucket_and_back(lake_root, s3_root, tmp_path):
    kernel = filled(lake_root)
    manifest = kernel.snapshot(label="paper")
    before = kernel.lake(snapshot="paper").bars(BTC, timeframe="1m").collect()
    bucket = Store(s3_root)
    done = export_snapshot(kernel.store, manifest, bucket, CLOCK)
    assert (done.files, done.copied) == (3, 3)
    assert export_snapshot(kernel.store, manifest, bucket, CLOCK).copied == 0
    lk = lake.open(s3_root, snapshot=manifest.snapshot_id, verify=True)
    assert lk.bars(BTC, timeframe="1m").collect().equals(before)
    assert verify(bucket, load_manifest(bucket, manifest.snapshot_id), level="deep").files == 3
    assert bucket.sizes("leases") == {}
    assert every_label(bucket) == []
    with pytest.raises(RequestError, match="no newest state"):
        lake.open(s3_root).scan(BARS.name)

    back = Store(tmp_path / "back")
    (done,) = import_snapshots(bucket, back, CLOCK)
    assert done.snapshot_id == manifest.snapshot_id
    read = lake.open(back.uri, snapshot=manifest.snapshot_id, verify=True)
    assert read.bars(BTC, timeframe="1m").collect().equals(before)


def test_a_snapshot_goes_from_bucket_to_bucket(s3_root):
    kernel = filled(s3_root)
    manifest = kernel.snapshot()
    there = Store(f"{s3_root}-out")
    assert export_snapshot(kernel.store, manifest, there, CLOCK).copied == 3
    path = next(path for path in there.sizes(BARS.path) if path.endswith(".parquet"))
    there.put(path, bytes(there.size(path)))
    assert export_snapshot(kernel.store, manifest, there, CLOCK).copied == 1
    assert verify(there, manifest, level="deep").files == 3
