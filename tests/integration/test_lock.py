"""A lake that is opened by its lock, and runs that are bound to one."""

import shutil
from dataclasses import replace

import pytest
from kernel_support import BTC, ETH, Kernel, Row, series

import lake
from contracts.errors import (
    ChecksumError,
    LakeNotFoundError,
    LockDriftError,
    LockedRunError,
    RequestError,
    SnapshotIncompleteError,
)
from contracts.tables import BARS
from lake.lakehouse import bars_query
from lake.lockfile import make_lock, write_lock
from lake.manifest import manifest_path
from lake.store import Store


@pytest.fixture(autouse=True)
def _unbound(monkeypatch):
    for name in ("LAKE_LOCK", "LAKE_ROOT", "LAKE_ALLOW_ENGINE_DRIFT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kernel(lake_root):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(30)))
    kernel.observe(0, 30)
    return kernel


def locked(kernel, path, *, change=lambda lock: lock, root="lake", **more):
    query = bars_query(BTC, **({"timeframe": "1m", "end": "2026-03-24T00:20Z"} | more))
    manifest = kernel.snapshot()
    made = make_lock(kernel.store, manifest, root=root, queries={"bars": query}, clock=kernel.clock)
    write_lock(change(made), path)
    return path


@pytest.fixture
def path(kernel, tmp_path):
    return locked(kernel, tmp_path / "lake.lock")


def revise(kernel):
    kernel.step(hours=1)
    kernel.publish([Row(3, 250.0)])


def test_a_lock_opens_its_snapshot_and_its_query_though_the_lake_went_on(kernel, path):
    before = lake.open(lock=path).locked_bars(verify=True).collect()
    revise(kernel)
    lk = lake.open(lock=path)
    assert lk.snapshot_id == lk.lock.snapshot_id == lk.manifest.snapshot_id
    assert lk.root == str(kernel.root)
    assert lk.locked_bars(verify=True).collect().equals(before)
    assert lk.locked_bars("bars").collect().equals(before)
    newest = lake.open(kernel.root).bars(BTC, timeframe="1m", end="2026-03-24T00:20Z").collect()
    assert (before.height, newest["close"][3], before["close"][3]) == (20, 250.0, 100.53)


def test_a_query_is_locked_with_all_that_it_says(kernel, tmp_path):
    kernel.publish(series(range(5), instrument=ETH))
    revise(kernel)
    path = locked(
        kernel,
        tmp_path / "lake.lock",
        start="2026-03-24T00:02Z",
        columns=["instrument_id", "close"],
        known_at="2026-04-01T00:30Z",
        available_at="2026-03-24T00:06Z",
    )
    rows = lake.open(lock=path).locked_bars(verify=True).collect()
    assert rows.columns == ["instrument_id", "close"]
    assert rows["close"].to_list() == [100.52, 100.53, 100.54]
    assert sorted(lake.open(lock=path).lock.tables) == [
        "ops.ledger", "silver.bar_revisions", "silver.bars",
    ]  # fmt: skip


def test_what_cannot_be_meant_is_refused(kernel, path):
    with pytest.raises(RequestError, match="No lake was named"):
        lake.open()
    with pytest.raises(RequestError, match="not both"):
        lake.open(lock=path, snapshot="2026-04-01-00000000")
    with pytest.raises(RequestError, match="There is no lock"):
        lake.open(lock=path.with_name("none.lock"))
    with pytest.raises(RequestError, match="No lock was opened"):
        lake.open(kernel.root).locked_bars()
    with pytest.raises(RequestError, match="its queries: bars"):
        lake.open(lock=path).locked_bars("hourly")


def test_a_copy_of_the_lake_serves_as_well(kernel, path, tmp_path):
    revise(kernel)
    copy = kernel.copy(tmp_path / "copy")
    shutil.rmtree(kernel.root)
    with pytest.raises(LakeNotFoundError):
        lake.open(lock=path)
    lk = lake.open(copy.root, lock=path)
    assert lk.root == str(copy.root)
    assert lk.locked_bars(verify=True).collect().height == 20


def test_a_snapshot_that_is_gone_is_refused_with_what_the_newest_state_changed(kernel, path):
    revise(kernel)
    (kernel.root / manifest_path(lake.open(lock=path).snapshot_id)).unlink()
    with pytest.raises(LockDriftError) as caught:
        lake.open(lock=path)
    what = [fact.what for fact in caught.value.facts]
    assert what == ["snapshot", "newest silver.bars", "answer of query bars"]
    assert "no such snapshot here" in str(caught.value)
    assert "answer of query bars: 20 rows with hash" in str(caught.value)


def test_another_lake_of_the_same_bars_is_refused_and_told_to_hold_the_same(path, tmp_path):
    other = Kernel(tmp_path / "other", origin="replay:ff")
    other.publish(series(range(30)))
    with pytest.raises(LockDriftError) as caught:
        lake.open(other.root, lock=path)
    what = [fact.what for fact in caught.value.facts]
    assert what == ["snapshot", "origin of the data", "newest ops.ledger"]
    empty = Kernel(tmp_path / "empty")
    with pytest.raises(LockDriftError) as caught:
        lake.open(empty.root, lock=path)
    assert "This lake knows no 1m bars" in caught.value.changes[-1]


def test_a_changed_manifest_is_damage_and_keeps_its_error(kernel, path):
    manifest = kernel.root / manifest_path(lake.open(lock=path).snapshot_id)
    manifest.write_text(manifest.read_text().replace('"rows": 30', '"rows": 31'))
    with pytest.raises(ChecksumError):
        lake.open(lock=path)


def test_a_table_or_a_manifest_of_the_same_id_that_differs_is_refused(kernel, tmp_path):
    def other(lock):
        bars = replace(lock.tables["silver.bars"], rows=29, logical_hash="0" * 32)
        ledger = replace(lock.tables["ops.ledger"], schema_hash="0" * 64)
        tables = {"silver.bars": bars, "ops.ledger": ledger, "silver.instruments": bars}
        return replace(lock, tables=tables, manifest_sha256="0" * 64)

    path = locked(kernel, tmp_path / "lake.lock", change=other)
    with pytest.raises(LockDriftError) as caught:
        lake.open(lock=path)
    what = [(fact.kind, fact.what) for fact in caught.value.facts]
    assert what == [
        ("data", "schema of ops.ledger"),
        ("data", "silver.bars"),
        ("data", "silver.instruments"),
        ("data", "manifest"),
    ]


def test_other_versions_of_the_packages_are_refused_unless_they_are_allowed(kernel, tmp_path):
    def older(lock):
        return replace(lock, packages={**lock.packages, "polars": "1.0.0"})

    path = locked(kernel, tmp_path / "lake.lock", change=older)
    with pytest.raises(LockDriftError, match=r"polars: 1\.0\.0 in the lock") as caught:
        lake.open(lock=path)
    assert [fact.kind for fact in caught.value.facts] == ["engine"]
    assert "allow_engine_drift" in caught.value.remedy
    lk = lake.open(lock=path, allow_engine_drift=True)
    assert lk.locked_bars(verify=True).collect().height == 20


def test_an_answer_that_is_not_the_locked_one_is_refused_when_it_is_verified(kernel, tmp_path):
    def other(lock):
        told = lock.queries["bars"]
        answer = replace(told.answer, logical_hash="0" * 32)
        return replace(lock, queries={"bars": replace(told, answer=answer)})

    lk = lake.open(lock=locked(kernel, tmp_path / "lake.lock", change=other))
    assert lk.locked_bars().collect().height == 20
    with pytest.raises(LockDriftError, match="answer of query bars: 20 rows with hash 0000"):
        lk.locked_bars(verify=True)


def test_a_file_that_is_gone_or_flipped_is_named(kernel, path):
    file = kernel.file_of(BARS)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ChecksumError, match=file.name):
        lake.open(lock=path, verify=True).locked_bars().collect()
    file.unlink()
    with pytest.raises(SnapshotIncompleteError, match=file.name):
        lake.open(lock=path).locked_bars().collect()


@pytest.fixture
def bound(path, monkeypatch):
    monkeypatch.setenv("LAKE_LOCK", str(path))
    return path


def test_a_bound_run_opens_the_locked_snapshot_however_it_is_asked(kernel, bound, monkeypatch):
    revise(kernel)
    snapshot_id = lake.open().snapshot_id
    link = kernel.root.with_name("link")
    link.symlink_to(kernel.root)
    monkeypatch.chdir(kernel.root.parent)
    asked = [
        lake.open(kernel.root),
        lake.open("lake"),
        lake.open("./lake/"),
        lake.open(link),
        lake.open(lock=bound),
        lake.open(kernel.root, snapshot=snapshot_id),
        lake.open(kernel.root, snapshot=snapshot_id[:13]),
        lake.open(snapshot=snapshot_id, verify=True),
    ]
    assert {lk.snapshot_id for lk in asked} == {snapshot_id}
    assert {lk.locked_bars(verify=True).collect().height for lk in asked} == {20}


def test_a_bound_run_opens_nothing_else(kernel, bound, tmp_path):
    revise(kernel)
    newer = kernel.snapshot().snapshot_id
    other = Kernel(tmp_path / "other")
    other.publish(series(range(3)))
    theirs = other.snapshot().snapshot_id
    copy = kernel.copy(tmp_path / "copy")
    another = tmp_path / "another.lock"
    write_lock(
        make_lock(kernel.store, kernel.snapshot(), root="lake", queries={}, clock=kernel.clock),
        another,
    )
    for asked in (
        {"root": other.root},
        {"root": copy.root},
        {"root": kernel.root, "snapshot": newer},
        {"snapshot": newer},
        {"snapshot": "no-such"},
        {"root": other.root, "snapshot": theirs},
        {"lock": another},
    ):
        with pytest.raises(LockedRunError, match="This run is locked to snapshot") as caught:
            lake.open(**asked)
        assert str(bound) in caught.value.message
    locked_id = lake.open().snapshot_id
    assert lake.open(copy.root, snapshot=locked_id).snapshot_id == locked_id


def test_a_bound_run_takes_its_root_and_its_leniency_from_who_started_it(
    kernel, tmp_path, monkeypatch
):
    def older(lock):
        return replace(lock, packages={**lock.packages, "polars": "1.0.0"})

    path = locked(kernel, tmp_path / "lake.lock", change=older)
    copy = kernel.copy(tmp_path / "copy")
    monkeypatch.setenv("LAKE_LOCK", str(path))
    monkeypatch.setenv("LAKE_ROOT", str(copy.root))
    with pytest.raises(LockDriftError, match="polars"):
        lake.open(allow_engine_drift=True)
    monkeypatch.setenv("LAKE_ALLOW_ENGINE_DRIFT", "1")
    assert lake.open().root == str(copy.root)
    with pytest.raises(LockedRunError, match="newest state"):
        lake.open(kernel.root)


def test_a_binding_without_a_lock_opens_nothing(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("LAKE_LOCK", str(tmp_path / "none.lock"))
    with pytest.raises(RequestError, match="There is no lock"):
        lake.open(kernel.root)
    monkeypatch.setenv("LAKE_LOCK", "")
    assert lake.open(kernel.root).snapshot_id is None


def test_an_open_lock_keeps_no_lake_busy(kernel, path):
    before = set(Store(kernel.root).sizes(""))
    lake.open(lock=path).locked_bars(verify=True).collect()
    assert set(Store(kernel.root).sizes("")) == before
