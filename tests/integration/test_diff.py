"""A diff of two snapshots reads what differs, counts what changed, and names what is missing."""

from __future__ import annotations

import shutil

import pytest
from kernel_support import BTC, ETH, Kernel, Row, response_of, seal_early, series

from contracts.errors import (
    RequestError,
    SnapshotIncompleteError,
    TableNotPinnedError,
    UnknownSnapshotError,
    UnknownTableError,
)
from contracts.tables import BARS, LEDGER, RESPONSES
from lake.diff import diff_snapshots

NONE = {"added": 0, "revised": 0, "removed": 0}


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.land(response_of(b"[1]"))
    made.publish(series(range(20)))
    made.publish([Row(3, 1.0, instrument=ETH)], timeframe="1h")
    made.observe(0, 20)
    return made


def test_a_revision_is_told_with_its_old_and_its_new_value(kernel):
    before = kernel.snapshot(label="before").snapshot_id
    kernel.step(hours=1)
    kernel.publish([Row(3, 200.0), Row(30, 5.0)])
    after = kernel.snapshot().snapshot_id
    diff = kernel.lake(snapshot="before").diff(after, rows=True)
    assert (diff.a, diff.b, diff.left_out) == (before, after, ())
    by_table = {row[0]: row[-3:] for row in diff.summary.rows()}
    assert by_table == {"silver.bars": (1, 1, 0), "silver.bar_revisions": (1, 0, 0)}
    revised = diff.rows[BARS.name].filter(change="revised").row(0, named=True)
    assert (revised["old_close"], revised["new_close"]) == (100.53, 200.0)
    assert (revised["instrument_id"], f"{revised['day']}") == (BTC, "2026-03-24")
    back = kernel.lake(snapshot=after).diff(before)
    assert back.counts == {"added": 0, "revised": 1, "removed": 2}


def test_rows_that_a_merge_moved_from_file_to_file_do_not_count(kernel, monkeypatch):
    seal_early(monkeypatch, 4, fan_in=50)
    for minute in range(30, 60, 5):
        kernel.publish(series(range(minute, minute + 5)))
    before = kernel.snapshot()
    monkeypatch.setattr("lake.layout.FAN_IN", 2)
    kernel.publish(series(range(100, 105)))
    after = kernel.snapshot()
    moved = {path for path in paths(before) if path not in paths(after)}
    assert len(moved) == 2
    diff = diff_snapshots(kernel.store, before, after)
    assert diff.counts == {**NONE, "added": 5}


def paths(manifest):
    return {told["path"] for told in manifest.tables[BARS.name]["files"]}


def test_a_plain_rewrite_is_seen_without_reading_a_file(kernel, monkeypatch):
    """Every file that differs is deleted first: what is not read cannot be missed."""
    seal_early(monkeypatch, 4, fan_in=50)
    for minute in range(30, 60, 5):
        kernel.publish(series(range(minute, minute + 5)))
    before = kernel.snapshot()
    frames = kernel.rows(BARS).filter(timeframe="1m")
    view = kernel.tables[BARS.name].head()
    old = [entry for entry in view.files if entry.partition["timeframe"] == "1m"]
    rewrite(kernel, old, frames)
    after = kernel.snapshot()
    assert len(paths(before) & paths(after)) == 1
    shutil.rmtree(kernel.root / BARS.path)
    diff = diff_snapshots(kernel.store, before, after)
    assert (diff.counts, diff.files_read, diff.bytes_read) == (NONE, 0, 0)


def rewrite(kernel, old, rows):
    from lake.tables import Change

    change = Change(write=[rows.sort(BARS.sort_by)], remove=old, data_change=False)
    kernel.tables[BARS.name].transact("rewrite", lambda _: change)


def test_only_files_that_differ_are_read(kernel):
    before = kernel.snapshot()
    kernel.publish([Row(21, 7.0)])
    after = kernel.snapshot()
    shared = [
        kernel.root / pinned["path"] / told["path"]
        for name, pinned in before.tables.items()
        for told in pinned["files"]
        if told in after.tables[name]["files"]
    ]
    assert len(shared) == 3
    for path in shared:
        path.unlink()
    diff = diff_snapshots(kernel.store, before, after)
    assert (diff.counts, diff.files_read) == ({**NONE, "added": 1}, 2)
    differing = next(
        told for told in after.tables[BARS.name]["files"] if told["path"] not in paths(before)
    )
    (kernel.root / BARS.path / differing["path"]).unlink()
    with pytest.raises(SnapshotIncompleteError, match=differing["sha256"]):
        diff_snapshots(kernel.store, before, after)


def test_snapshots_of_some_tables_are_compared_in_what_both_pin(kernel):
    whole = kernel.snapshot()
    kernel.publish([Row(21, 7.0)])
    part = kernel.snapshot(members=[BARS.name, LEDGER.name])
    diff = diff_snapshots(kernel.store, whole, part)
    assert diff.counts == {**NONE, "added": 1}
    assert RESPONSES.name in diff.left_out
    assert BARS.name not in diff.left_out
    with pytest.raises(TableNotPinnedError):
        diff_snapshots(kernel.store, whole, part, tables=[RESPONSES.name])
    with pytest.raises(UnknownTableError):
        diff_snapshots(kernel.store, whole, part, tables=["silver.bar"])
    assert diff_snapshots(kernel.store, whole, part, tables=[LEDGER.name]).counts == NONE


def test_a_table_that_came_later_is_all_added_and_rows_without_instrument_count_by_day(kernel):
    before = kernel.snapshot()
    kernel.publish([Row(3, 200.0)])
    kernel.land(response_of(b"[2]", at=kernel.step(hours=1)))
    diff = diff_snapshots(kernel.store, before, kernel.snapshot())
    assert BARS.name in diff.summary["table"].to_list()
    responses = diff.summary.filter(table=RESPONSES.name).row(0, named=True)
    assert (responses["instrument_id"], responses["venue"]) == (None, "binance")
    assert (f"{responses['day']}", responses["added"]) == ("2026-04-01", 1)


def test_heads_and_unknown_snapshots_are_refused(kernel):
    kernel.snapshot(label="one")
    with pytest.raises(RequestError, match="Only snapshots can be compared"):
        kernel.lake().diff("one")
    with pytest.raises(UnknownSnapshotError):
        kernel.lake(snapshot="one").diff("two")
    assert kernel.lake(snapshot="one").diff("one").counts == NONE


def test_progress_is_told_by_table(kernel):
    before = kernel.snapshot()
    kernel.publish([Row(21, 7.0)])
    told = []
    diff_snapshots(
        kernel.store, before, kernel.snapshot(), on_progress=lambda *step: told.append(step)
    )
    assert told == [(BARS.name, 2)]
