"""Maintenance on real tables: what it compacts, what it keeps, what it deletes, what it notes."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from kernel_support import (
    BTC,
    ETH,
    KNOWN,
    Kernel,
    Row,
    bars_of,
    response_of,
    seal_early,
    series,
)

from contracts.errors import ChecksumError, StoreUnavailableError, TornLogError
from contracts.tables import BAR_REVISIONS, BARS, DELETIONS, RESPONSES, RUNS
from contracts.time import SteppedClock
from flows.cli.entry import main
from flows.maintain import PARTS, MaintainRequest, maintain
from flows.work import Progress, Work
from lake.compact import compact_partition, writers_app
from lake.leases import GRACE, lease
from lake.parts import read_row_hash
from lake.pins import confirm_unpin, request_unpin
from lake.retention import expire
from lake.rowhash import combine
from lake.scan import read_files
from lake.settings import Settings
from lake.verify import verify

NEXT_YEAR = KNOWN + timedelta(days=365)
NOW = timedelta(0)


def work_of(kernel, **settings):
    told = Settings(fsync=False, **settings)
    return Work(kernel.tables, kernel.clock, f"run-{time.monotonic_ns()}", told, Progress())


def maintained(kernel, *, only=PARTS, apply=True, grace=NOW, lease_grace=GRACE, **settings):
    request = MaintainRequest(apply, tuple(only), grace, lease_grace)
    return asyncio.run(maintain(work_of(kernel, **settings), request))


def of_data(report):
    """Return the actions on data; runs of maintenance outdate their own notes."""
    return [each for each in report.actions if not each.table_name.startswith("ops.")]


def many_files(kernel, monkeypatch):
    """Fill a year of bars with a dozen files of two instruments."""
    seal_early(monkeypatch, 10, fan_in=100, series=100)
    for first in range(0, 120, 12):
        rows = series(range(first, first + 12)) + series(range(first, first + 6), instrument=ETH)
        kernel.publish(rows)
        kernel.step(minutes=1)


def data_files(kernel, spec):
    return sorted((kernel.root / spec.path).rglob("part-*.parquet"))


def logical_hash(kernel, spec):
    files = kernel.tables[spec.name].head().files
    return combine(read_row_hash(kernel.store, spec, entry) for entry in files)


def instruments(view):
    """Return the instrument and the rows of each file that holds one alone."""
    bounds = [(entry.low["instrument_id"], entry.high["instrument_id"]) for entry in view.files]
    alone = zip(bounds, view.files, strict=True)
    return sorted((low, entry.rows) for (low, high), entry in alone if low == high)


def two_hours_ago(kernel):
    return (kernel.clock.storage() - timedelta(hours=2)).timestamp()


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path / "lake")


@pytest.fixture
def closed(kernel, monkeypatch):
    """Return a lake whose year of bars is over, with many files."""
    many_files(kernel, monkeypatch)
    kernel.clock.step(NEXT_YEAR - KNOWN)
    return kernel


def test_a_closed_year_becomes_few_files_with_the_same_rows(closed):
    before, hashed = closed.rows(BARS), logical_hash(closed, BARS)
    files = len(closed.tables[BARS.name].head().files)
    maintained(closed, only=["compact"])
    view = closed.tables[BARS.name].head()
    assert files > 3
    assert len(view.files) == 2
    assert closed.rows(BARS).equals(before)
    assert logical_hash(closed, BARS) == hashed
    own = [
        entry for entry in view.files if entry.low["instrument_id"] == entry.high["instrument_id"]
    ]
    assert [entry.low["instrument_id"] for entry in own if entry.rows >= 100] == [BTC]
    for entry in view.files:
        rows = read_files(closed.store, BARS, [entry])
        assert rows.equals(rows.sort(BARS.sort_by))


def test_compacting_again_commits_nothing(closed):
    maintained(closed, only=["compact"])
    version = closed.tables[BARS.name].head().version
    assert of_data(maintained(closed, only=["compact"])) == []
    assert closed.tables[BARS.name].head().version == version


def test_the_same_rows_become_the_same_files(closed, tmp_path):
    twin = closed.copy(tmp_path / "twin")
    for each in (closed, twin):
        maintained(each, only=["compact"])
    names = [
        [entry.path for entry in each.tables[BARS.name].head().files] for each in (closed, twin)
    ]
    assert names[0] == names[1]


def test_rows_of_an_instrument_leave_the_shared_file_for_its_own(kernel, monkeypatch):
    seal_early(monkeypatch, 1_000, series=50)
    kernel.publish(series(range(60)))
    kernel.publish(series(range(60, 70)) + series(range(10), instrument=ETH))
    before = kernel.rows(BARS)
    kernel.clock.step(NEXT_YEAR - KNOWN)
    maintained(kernel, only=["compact"])
    files = kernel.tables[BARS.name].head().files
    assert sorted((entry.low["instrument_id"], entry.rows) for entry in files) == [
        (BTC, 70),
        (ETH, 10),
    ]
    assert kernel.rows(BARS).equals(before)


def test_an_open_year_is_left_alone(kernel, monkeypatch):
    many_files(kernel, monkeypatch)
    assert of_data(maintained(kernel, only=["compact"])) == []


def test_every_compaction_uses_the_app_transaction_of_the_partitions_writers(closed):
    closed.land(response_of(b"[1]"))
    closed.publish([Row(3, 250.0)])
    for spec in (BARS, BAR_REVISIONS, RESPONSES):
        table = closed.tables[spec.name]
        app = writers_app(spec, table.head().files[0].partition)
        handle = DeltaTable(table.uri)
        assert handle.transaction_version(app) is not None, spec.name


def test_a_writer_between_plan_and_commit_makes_the_compaction_plan_again(closed, monkeypatch):
    other = Kernel(closed.root, known=closed.clock.known())
    table = closed.tables[BARS.name]
    commit = type(table)._commit
    raced = []

    def racing(self, handle, view, app, change):
        if not raced and not change.data_change:
            raced.append(other.publish([Row(1, 777.0), Row(500, 1.0)]))
        return commit(self, handle, view, app, change)

    monkeypatch.setattr(type(table), "_commit", racing)
    rows = closed.rows(BARS).height
    compact_partition(table, table.head().files[0].partition)
    assert raced
    told = closed.rows(BARS)
    assert told.height == rows + 1
    assert told.select(BARS.key).is_unique().all()
    revised = told.filter(instrument_id=pl.lit(BTC)).sort("open_time")["close"]
    assert revised[1] == 777.0


def test_a_rotten_file_is_not_compacted_into_a_sound_one(closed):
    table = closed.tables[BARS.name]
    entry = table.head().files[0]
    rows = read_files(closed.store, BARS, [entry])
    path = closed.root / BARS.path / entry.path
    hashed = {"tidemark.row_hash": read_row_hash(closed.store, BARS, entry)}
    spoiled = rows.with_columns(pl.col("close") + 1).select(BARS.file_schema.names())
    spoiled.write_parquet(path, metadata=hashed, compression="lz4")
    # The size that the log states is not asked of a file that is read.
    with pytest.raises(ChecksumError, match="not rewritten"):
        compact_partition(table, entry.partition)


def test_others_read_the_same_rows_after_compaction_and_vacuum(closed):
    before = closed.rows(BARS)
    maintained(closed)
    uri = str(closed.root / BARS.path)
    scanned = pl.scan_delta(uri).select(before.columns).sort(BARS.key).collect()
    assert scanned.equals(before)
    handle = DeltaTable(uri)
    told = pl.read_parquet(handle.file_uris(), hive_partitioning=False)
    assert told.height == before.height == handle.count()
    assert sorted(handle.file_uris()) == [str(path) for path in data_files(closed, BARS)]


def test_vacuum_deletes_exactly_what_neither_head_nor_pin_names(closed):
    pinned = closed.snapshot()
    closed.publish([Row(3, 300.0)])
    between = set(data_files(closed, BARS))
    closed.publish([Row(3, 301.0)])
    maintained(closed, only=["compact", "vacuum"])
    heads = {
        closed.root / BARS.path / entry.path for entry in closed.tables[BARS.name].head().files
    }
    pins = {closed.root / BARS.path / entry.path for entry in pinned.view(BARS.name).files}
    assert set(data_files(closed, BARS)) == heads | pins
    assert between - heads - pins
    assert verify(closed.store, pinned, level="deep").files


def test_a_pinned_delta_version_is_readable_by_others_after_the_vacuum(closed):
    pinned = closed.snapshot()
    before = closed.rows(BARS)
    closed.publish([Row(3, 300.0)])
    maintained(closed)
    version = pinned.tables[BARS.name]["version"]
    uri = str(closed.root / BARS.path)
    told = pl.scan_delta(uri, version=version).select(before.columns).sort(BARS.key).collect()
    assert told.equals(before)


def test_every_deleted_object_has_its_row_and_each_row_says_why(closed):
    closed.publish([Row(3, 300.0)])
    before = {path: path.stat().st_size for path in closed.root.rglob("part-*.parquet")}
    maintained(closed)
    gone = {
        path.relative_to(closed.root).as_posix(): size
        for path, size in before.items()
        if not path.exists()
    }
    told = closed.rows(DELETIONS)
    assert gone
    assert dict(told.select("path", "size_bytes").iter_rows()) == gone
    assert set(told["reason"]) == {"unreachable"}
    assert told["rows"].null_count() == 0
    assert told["rows"].min() > 0


def test_an_unpinned_snapshot_gives_its_files_back(closed):
    pinned = closed.snapshot()
    closed.publish([Row(3, 300.0)])
    maintained(closed)
    kept = len(data_files(closed, BARS))
    asked = request_unpin(closed.tables, pinned, why="done")
    assert of_data(maintained(closed, only=["vacuum"])) == []
    confirm_unpin(closed.tables, pinned, token=asked.token)
    maintained(closed, only=["vacuum"])
    assert len(data_files(closed, BARS)) == len(closed.tables[BARS.name].head().files) < kept


def test_within_the_grace_nothing_goes_that_was_written_or_replaced_just_now(closed):
    old = two_hours_ago(closed)
    for path in data_files(closed, BARS):
        os.utime(path, (old, old))
    maintained(closed, only=["compact"])
    report = maintained(closed, only=["vacuum"], grace=timedelta(hours=1))
    assert of_data(report) == []
    assert any("within the grace" in note for note in report.notes)
    for path in (closed.root / BARS.path / "_delta_log").iterdir():
        os.utime(path, (old, old))
    report = maintained(closed, only=["vacuum"], grace=timedelta(hours=1))
    assert [each.part for each in of_data(report)] == ["vacuum"]


def test_while_a_lease_holds_nothing_goes_and_afterwards_it_does(closed):
    closed.publish([Row(3, 300.0)])
    before = data_files(closed, BARS)
    with lease(closed.store, closed.clock, "import"):
        report = maintained(closed, only=["vacuum"])
        assert data_files(closed, BARS) == before
        assert any("import" in note for note in report.notes)
    maintained(closed, only=["vacuum"])
    assert len(data_files(closed, BARS)) < len(before)


@pytest.mark.parametrize("year", [2020, 2046])
def test_a_dead_lease_is_cleared_away_and_noted(closed, year):
    """However far ahead its holder's clock was."""
    path = closed.root / "leases" / "dead.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{"kind":"snapshot","created_at":"{year}-01-01T00:00:00Z"}}')
    os.utime(path, (0, 0))
    maintained(closed, only=["leftovers"])
    assert not path.exists()
    assert closed.rows(DELETIONS)["reason"].to_list() == ["lease"]


def test_a_lease_that_cannot_be_read_holds_as_long_as_it_is_young(closed):
    path = closed.root / "leases" / "broken.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    closed.publish([Row(3, 300.0)])
    assert of_data(maintained(closed, only=["vacuum"])) == []


def test_leftovers_of_crashes_go_when_they_are_old_and_nothing_else_does(closed):
    old = two_hours_ago(closed)
    folder = data_files(closed, BARS)[0].parent
    left = [
        folder / "part-aa.parquet#1",
        folder / "part-aa.parquet#deadbeef",
        closed.root / BARS.path / "_delta_log" / "00000000000000000099.json#1",
        closed.root / "snapshots" / "2026-04-01-aa.json#12345678",
        closed.root / "probes" / "0badcafe" / "003",
    ]
    kept = [folder / "note.txt#1", folder / "other.parquet", folder / "part-bb.parquet#2"]
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (old, old))
    os.utime(kept[2])
    maintained(closed, only=["leftovers"], grace=timedelta(hours=1))
    assert [path for path in left if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert set(closed.rows(DELETIONS)["reason"]) == {"leftover"}


def test_a_needed_file_that_lies_aside_is_put_back(closed):
    path = closed.file_of(BARS)
    aside = path.with_name(f"{path.name}#0badcafe")
    path.rename(aside)
    report = maintained(closed, only=["leftovers"])
    assert path.exists()
    assert any("put back" in note for note in report.notes)
    assert not aside.exists()
    assert closed.rows(BARS).height


def test_a_file_written_anew_while_it_is_being_deleted_stays(closed):
    path = data_files(closed, BARS)[0]
    name = path.relative_to(closed.root).as_posix()
    before = closed.store.listing(BARS.path)[name].modified
    closed.store.put(name, path.read_bytes())
    assert not closed.store.delete_unless_newer(name, before)
    assert path.exists()
    assert list(path.parent.glob("*#*")) == []
    again = closed.store.listing(BARS.path)[name].modified
    assert closed.store.delete_unless_newer(name, again)
    assert not path.exists()


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(closed):
    closed.publish([Row(3, 300.0)])

    def state():
        return {path: path.stat().st_mtime_ns for path in closed.root.rglob("*") if path.is_file()}

    before = state()
    report = maintained(closed, apply=False)
    assert state() == before
    told = {(each.part, each.table_name): each for each in report.actions}
    assert told["compact", BARS.name].files > 3
    assert told["vacuum", BARS.name].size_bytes > 0
    done = maintained(closed)
    assert done.frame().filter(part="vacuum")["files"].sum() >= told["vacuum", BARS.name].files


def test_an_unreadable_manifest_or_log_stops_every_deletion(closed):
    pinned = closed.snapshot()
    closed.publish([Row(3, 300.0)])
    before = data_files(closed, BARS)
    path = closed.root / "snapshots" / f"{pinned.snapshot_id}.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"silver", b"sILver", 1))
    with pytest.raises(ChecksumError):
        maintained(closed, only=["vacuum"])
    path.write_bytes(whole)
    log = closed.log_of(BARS, closed.tables[BARS.name].head().version)
    log.write_bytes(b"")
    fresh = Kernel(closed.root, known=closed.clock.known())
    with pytest.raises(TornLogError):
        maintained(fresh, only=["vacuum"])
    assert data_files(closed, BARS) == before


def test_a_table_with_many_commits_gets_a_checkpoint(kernel):
    properties = {"delta.checkpointInterval": "1000"}
    kernel.publish(series([0]))
    DeltaTable(str(kernel.root / BARS.path)).alter.set_table_properties(properties)
    for minute in range(1, 14):
        kernel.publish(series([minute]))
    before = kernel.rows(BARS)
    assert maintained(kernel, only=["checkpoint"]).notes
    kernel = Kernel(kernel.root, known=kernel.clock.known())
    kernel.tables[BARS.name].mend_properties()
    report = maintained(kernel, only=["checkpoint"])
    assert [each.table_name for each in report.actions] == [BARS.name]
    assert list((kernel.root / BARS.path / "_delta_log").glob("*.checkpoint.parquet"))
    assert Kernel(kernel.root).rows(BARS).equals(before)
    assert of_data(maintained(kernel, only=["checkpoint"])) == []


def days_of_answers(kernel):
    """Land an answer a day for 40 days, and for 24 days one more with the same body.

    That body is stored on days 0, 8 and 16; the other days refer to it.
    """
    for day in range(40):
        at = KNOWN + timedelta(days=day)
        kernel.clock.step(at - kernel.clock.known())
        kernel.land(response_of(b'{"day":%d}' % day, at=at, limit=2))
        if day < 24:
            kernel.land(response_of(b'{"always":"the same"}', at=at, limit=1))


def test_old_days_of_answers_expire_but_no_body_that_a_kept_row_refers_to(kernel):
    from lake.landing import landed

    days_of_answers(kernel)
    pinned = kernel.snapshot()
    report = maintained(kernel, bronze_days=20)
    view = kernel.tables[RESPONSES.name].head()
    first_kept = f"{kernel.clock.known() - timedelta(days=20):%Y-%m-%d}"
    kept = landed(kernel.store, view, venue="binance", endpoint="GET /api/v3/klines")
    days = {f"{each.received_at:%Y-%m-%d}" for each in kept}
    assert first_kept == f"{KNOWN + timedelta(days=19):%Y-%m-%d}"
    assert len([day for day in days if day >= first_kept]) == 21
    older = [each for each in kept if f"{each.received_at:%Y-%m-%d}" < first_kept]
    assert [each.received_at for each in older] == [KNOWN + timedelta(days=16)]
    assert len(kept) == 1 + 5 * 2 + 16
    assert sum(each.body == b'{"always":"the same"}' for each in kept) == 6
    assert "retention" in {each.part for each in of_data(report)}
    assert verify(kernel.store, pinned, level="deep").files
    assert of_data(maintained(kernel, bronze_days=20)) == []

    asked = request_unpin(kernel.tables, pinned, why="done")
    confirm_unpin(kernel.tables, pinned, token=asked.token)
    maintained(kernel, bronze_days=20)
    told = kernel.rows(DELETIONS).filter(table_name=RESPONSES.name)
    expired = told["path"].str.extract(r"date=([\d-]+)/") < first_kept
    assert ((told["reason"] == "retention") == expired).all()
    assert expired.any()
    stored = {path.parent.name[5:] for path in data_files(kernel, RESPONSES)}
    assert stored == days


def test_without_a_policy_no_answer_expires(kernel):
    days_of_answers(kernel)
    before = kernel.rows(RESPONSES)
    maintained(kernel, only=["retention", "vacuum"])
    assert kernel.rows(RESPONSES).equals(before)


def test_an_expiry_that_raced_with_a_landing_loses_neither(kernel):
    days_of_answers(kernel)
    table = kernel.tables[RESPONSES.name]
    other = Kernel(kernel.root, known=kernel.clock.known())
    other.land(response_of(b"late", at=kernel.clock.known(), limit=3))
    gone = expire(table, venue="binance", first_kept="2026-05-01")
    assert gone.rows > 0
    assert kernel.rows(RESPONSES)["payload"].str.contains("late").sum() == 1


def test_days_of_answers_are_compacted(kernel, monkeypatch):
    monkeypatch.setattr("lake.layout.open_rows", lambda _: 2)
    for limit in range(6):
        kernel.land(*[response_of(b"%d-%d" % (limit, n), limit=10 * limit + n) for n in range(3)])
    kernel.step(days=2)
    before, hashed = kernel.rows(RESPONSES), logical_hash(kernel, RESPONSES)
    assert len(kernel.tables[RESPONSES.name].head().files) > 3
    maintained(kernel, only=["compact"])
    assert len(kernel.tables[RESPONSES.name].head().files) == 1
    assert kernel.rows(RESPONSES).equals(before)
    assert logical_hash(kernel, RESPONSES) == hashed


def test_a_commit_whose_files_took_too_long_is_refused(kernel, monkeypatch):
    kernel.publish(series(range(3)))
    storage, written = SteppedClock.storage, []
    monkeypatch.setattr(
        SteppedClock, "storage", lambda self: storage(self) + len(written) * timedelta(minutes=31)
    )
    put = type(kernel.store).put
    monkeypatch.setattr(type(kernel.store), "put", lambda *call: written.append(call) or put(*call))
    with pytest.raises(StoreUnavailableError, match="half the vacuum's grace"):
        kernel.publish([Row(1, 300.0)])
    assert kernel.rows(BARS)["close"].max() < 300


def test_a_run_is_noted_and_a_lake_without_anything_needs_nothing(kernel):
    assert of_data(maintained(kernel, apply=False)) == []
    maintained(kernel)
    told = kernel.rows(RUNS).sort("recorded_at")
    assert told["event"].to_list() == ["started", "succeeded"]
    assert set(told["command"]) == {"maintain"}


def test_the_command_prints_and_obeys(kernel, capsys, monkeypatch):
    seal_early(monkeypatch, 10, fan_in=100)
    past = datetime(2025, 3, 24, tzinfo=UTC)
    for first in range(0, 60, 12):
        kernel.publish_frame(bars_of(series(range(first, first + 12)), start=past))
    root = str(kernel.root)
    assert main(["maintain", "--root", root, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert '"compact"' in printed.out
    assert "dry run" in printed.err
    assert main(["maintain", "--root", root, "--only", "compact", "--apply"]) == 0
    assert "files became" in capsys.readouterr().err
    assert main(["maintain", "--root", root, "--only", "compakt"]) == 2
    assert "compact" in capsys.readouterr().err
    assert main(["maintain", "--root", str(kernel.root / "nowhere")]) == 2
