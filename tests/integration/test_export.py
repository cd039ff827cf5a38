"""A snapshot that is carried elsewhere keeps its id, reads the same, and verifies."""

from __future__ import annotations

import json
import shutil

import duckdb
import pytest
from kernel_support import BTC, Kernel, Row, response_of, series

import lake
from contracts.errors import (
    ChecksumError,
    CommitConflictError,
    LakeNotFoundError,
    LakeOriginError,
    RequestError,
    SettingsError,
    SnapshotIncompleteError,
    UnknownSnapshotError,
)
from contracts.tables import BARS
from contracts.time import SystemClock
from lake.export import export_snapshot, import_snapshots
from lake.labels import every_label
from lake.leases import lease
from lake.pinlog import pinned_ids
from lake.pins import confirm_unpin, request_unpin
from lake.root import init_lake, read_lake
from lake.store import Store
from lake.verify import verify

CLOCK = SystemClock()


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.land(response_of(b"[1]"))
    made.publish(series(range(20)))
    made.observe(0, 20)
    return made


@pytest.fixture
def there(tmp_path):
    return Store(tmp_path / "there", fsync=False)


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_an_export_keeps_the_id_reads_the_same_and_verifies(kernel, there):
    pinned = kernel.snapshot(label="paper")
    before = kernel.lake(snapshot="paper").bars(BTC, timeframe="1m").collect()
    kernel.publish([Row(3, 9.0)])
    steps = []
    done = export_snapshot(
        kernel.store, pinned, there, CLOCK, on_progress=lambda *step: steps.append(step)
    )
    assert (done.files, done.copied) == (3, 3)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    shutil.rmtree(kernel.root)
    lk = lake.open(there.uri, snapshot=done.snapshot_id, verify=True)
    assert lk.snapshot_id == pinned.snapshot_id
    assert lk.bars(BTC, timeframe="1m").collect().equals(before)
    assert verify(there, lk.manifest, level="deep").files == 3
    assert lk.manifest.beside == pinned.beside
    assert every_label(there) == []
    assert not list((there.path / "leases").iterdir())
    with pytest.raises(UnknownSnapshotError):
        lake.open(there.uri, snapshot="paper")


def test_an_export_is_plain_parquet(kernel, there):
    done = export_snapshot(kernel.store, kernel.snapshot(), there, CLOCK)
    told = json.loads((there.path / f"snapshots/{done.snapshot_id}.json").read_text())
    files = [
        str(there.path / BARS.path / each["path"])
        for each in told["content"]["tables"][BARS.name]["files"]
    ]
    (row,) = duckdb.sql(f"select count(*), sum(close) from read_parquet({files})").fetchall()
    bars = kernel.lake().bars(BTC, timeframe="1m").collect()
    assert row[0] == bars.height
    assert row[1] == pytest.approx(bars["close"].sum())


def test_an_export_has_no_newest_state_and_says_so(kernel, there):
    done = export_snapshot(kernel.store, kernel.snapshot(), there, CLOCK)
    lk = lake.open(there.uri)
    assert lk.snapshots()["snapshot_id"].to_list() == [done.snapshot_id]
    assert (lk.info.holds, lk.info.lake_id) == ("snapshots", kernel.lake().info.lake_id)
    for work in (
        lambda: lk.bars(BTC, timeframe="1m"),
        lambda: lk.scan(BARS.name),
        lk.ledger,
    ):
        with pytest.raises(RequestError, match="no newest state"):
            work()
    with pytest.raises(SettingsError, match="exported snapshots only"):
        init_lake(there, origin="live")


def test_what_is_there_already_is_not_copied_again(kernel, there):
    first = export_snapshot(kernel.store, kernel.snapshot(), there, CLOCK)
    before = contents(there.path)
    again = export_snapshot(kernel.store, kernel.snapshot(), there, CLOCK)
    assert (again.snapshot_id, again.copied) == (first.snapshot_id, 0)
    assert contents(there.path) == before
    kernel.publish([Row(30, 1.0)])
    more = export_snapshot(kernel.store, kernel.snapshot(), there, CLOCK)
    assert (more.files, more.copied) == (3, 1)
    assert pinned_ids(there) == sorted([first.snapshot_id, more.snapshot_id])


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_broken_file_there_is_replaced(kernel, there, how):
    manifest = kernel.snapshot()
    export_snapshot(kernel.store, manifest, there, CLOCK)
    path = next((there.path / BARS.path).rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content[:-1] if how == "truncated" else content)
    assert export_snapshot(kernel.store, manifest, there, CLOCK).copied == 1
    assert verify(there, manifest).files == 3


@pytest.mark.parametrize("how", ["deleted", "flipped", "truncated"])
def test_a_broken_file_here_is_named_and_nothing_is_visible_there(kernel, there, how):
    manifest = kernel.snapshot()
    path = kernel.file_of(BARS)
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content[:-9] if how == "truncated" else content)
    if how == "deleted":
        path.unlink()
    expected = SnapshotIncompleteError if how == "deleted" else ChecksumError
    with pytest.raises(expected, match=path.name):
        export_snapshot(kernel.store, manifest, there, CLOCK)
    assert lake.open(there.uri).snapshots().is_empty()
    assert not list((there.path / "leases").iterdir())


def test_who_gave_it_up_is_named_when_a_file_is_gone(kernel, there):
    manifest = kernel.snapshot()
    asked = request_unpin(kernel.tables, manifest, why="no space", by="ada")
    confirm_unpin(kernel.tables, manifest, token=asked.token, by="ada")
    assert export_snapshot(kernel.store, manifest, there, CLOCK).copied == 3
    shutil.rmtree(there.path)
    kernel.file_of(BARS).unlink()
    with pytest.raises(SnapshotIncompleteError, match="ada unpinned"):
        export_snapshot(kernel.store, manifest, there, CLOCK)


def test_an_import_brings_it_back_and_into_another_lake(kernel, there, tmp_path):
    manifest = kernel.snapshot()
    export_snapshot(kernel.store, manifest, there, CLOCK)
    before = kernel.lake(snapshot=manifest.snapshot_id).scan(BARS.name).collect()
    (kernel.root / "snapshots" / f"{manifest.snapshot_id}.json").unlink()
    kernel.file_of(BARS).unlink()
    (done,) = import_snapshots(there, kernel.store, CLOCK)
    assert (done.snapshot_id, done.copied) == (manifest.snapshot_id, 1)
    assert verify(kernel.store, manifest, level="deep").files == 3

    other = Kernel(tmp_path / "other")
    other.publish([Row(3, 1.0)])
    import_snapshots(there, other.store, CLOCK, snapshot=manifest.snapshot_id[:-1])
    lk = other.lake(snapshot=manifest.snapshot_id, verify=True)
    assert lk.scan(BARS.name).collect().equals(before)
    assert lk.manifest.beside["lake_id"] == read_lake(kernel.store).lake_id
    assert other.lake().bars(BTC, timeframe="1m").collect().height == 1

    empty = Store(tmp_path / "empty", fsync=False)
    import_snapshots(kernel.store, empty, CLOCK)
    assert read_lake(empty).holds == "snapshots"
    assert (
        lake.open(empty.uri, snapshot=manifest.snapshot_id, verify=True)
        .scan(BARS.name)
        .collect()
        .equals(before)
    )


def test_origins_and_lakes_do_not_mix(kernel, tmp_path):
    manifest = kernel.snapshot()
    replayed = Kernel(tmp_path / "replayed", origin="replay:1")
    live = Kernel(tmp_path / "live")
    before = contents(tmp_path / "replayed")
    for target in (replayed.store, live.store):
        with pytest.raises(LakeOriginError) as error:
            export_snapshot(kernel.store, manifest, target, CLOCK)
        assert error.value.remedy
    with pytest.raises(LakeOriginError, match="replay:1"):
        import_snapshots(kernel.store, replayed.store, CLOCK)
    assert contents(tmp_path / "replayed") == before
    copy = kernel.copy(tmp_path / "copy")
    (copy.root / "snapshots" / f"{manifest.snapshot_id}.json").unlink()
    assert export_snapshot(kernel.store, manifest, copy.store, CLOCK).copied == 0
    assert copy.lake(snapshot=manifest.snapshot_id).snapshot_id == manifest.snapshot_id


def test_places_that_cannot_be_meant_are_refused(kernel, there, tmp_path):
    manifest = kernel.snapshot()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("dear")
    with pytest.raises(RequestError, match="holds other things"):
        export_snapshot(kernel.store, manifest, Store(tmp_path / "thesis"), CLOCK)
    assert len(contents(tmp_path / "thesis")) == 1
    with pytest.raises(RequestError, match="is where the snapshot is"):
        export_snapshot(kernel.store, manifest, kernel.store, CLOCK)
    with pytest.raises(LakeNotFoundError):
        import_snapshots(Store(tmp_path / "nowhere"), kernel.store, CLOCK)
    with pytest.raises(UnknownSnapshotError, match="nothing"):
        import_snapshots(kernel.store, there, CLOCK, snapshot="nothing")
    with pytest.raises(RequestError, match="has no snapshots"):
        import_snapshots(Kernel(tmp_path / "bare").store, there, CLOCK)
    assert not there.path.exists()


def test_another_content_under_the_same_id_is_refused(kernel, there, monkeypatch):
    monkeypatch.setattr("lake.snapshots._HASH_DIGITS", (1, 8))
    manifest = kernel.snapshot()
    told = export_snapshot(kernel.store, manifest, there, CLOCK)
    path = there.path / f"snapshots/{told.snapshot_id}.json"
    content = json.loads(path.read_text())
    for number in range(200):  # another content whose hash begins with the same digit
        content["content"]["code"] = {"tidemark": f"x{number}"}
        path.write_text(json.dumps(content))
        try:
            lake.open(there.uri, snapshot=told.snapshot_id)
        except ChecksumError:
            continue
        break
    with pytest.raises(ChecksumError, match="another snapshot of the id"):
        export_snapshot(kernel.store, manifest, there, CLOCK)


def test_a_vacuum_under_way_stops_an_import_before_it_counts_as_done(kernel, there):
    manifest = kernel.snapshot()
    export_snapshot(kernel.store, manifest, there, CLOCK)
    with (
        lease(there, CLOCK, "maintain"),
        pytest.raises(CommitConflictError, match="under way") as error,
    ):
        export_snapshot(kernel.store, manifest, there, CLOCK)
    assert error.value.retryable
    assert export_snapshot(kernel.store, manifest, there, CLOCK).copied == 0


def test_a_lease_is_taken_anew_before_it_grows_old(kernel, there, monkeypatch):
    from datetime import timedelta

    class Fast:
        """A clock on which every look is ten minutes later."""

        def __init__(self):
            self.now = CLOCK.storage()

        def storage(self):
            self.now += timedelta(minutes=10)
            return self.now

        known = storage

    seen = []
    monkeypatch.setattr(Store, "create", noting(seen, Store.create))
    export_snapshot(kernel.store, kernel.snapshot(), there, Fast())
    assert sum(path.startswith("leases/") for path in seen) > 3
    assert not list((there.path / "leases").iterdir())


def noting(seen, create):
    def call(store, path, data):
        seen.append(path)
        return create(store, path, data)

    return call
