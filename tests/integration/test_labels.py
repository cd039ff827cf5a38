"""Names of snapshots: ids, labels that move, abbreviations, and what is none of them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from kernel_support import BTC, Kernel, Row, response_of, series

from contracts.errors import (
    AmbiguousSnapshotError,
    ChecksumError,
    RequestError,
    TableNotPinnedError,
    UnknownSnapshotError,
    UnknownTableError,
)
from contracts.tables import BARS, LEDGER, RESPONSES, RUNS
from lake.labels import every_label, labels_by_snapshot, resolve_snapshot, set_label
from lake.manifest import load_manifest
from lake.pins import confirm_unpin, is_pinned, request_unpin
from lake.snapshots import MEMBERS
from lake.verify import verify


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.publish(series(range(10)))
    made.observe(0, 10)
    return made


def pinned_by(kernel, name):
    return kernel.lake(snapshot=name).snapshot_id


def test_a_label_moves_and_ids_do_not(kernel):
    first = kernel.snapshot(label="paper").snapshot_id
    before = kernel.lake(snapshot="paper").bars(BTC, timeframe="1m").collect()
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot(label="paper", members=None).snapshot_id
    assert first != second
    assert pinned_by(kernel, "paper") == second
    assert kernel.lake(snapshot=first).bars(BTC, timeframe="1m").collect().equals(before)
    (label,) = every_label(kernel.store)
    assert (label.snapshot_id, label.previous) == (second, first)
    assert kernel.clock.storage() - label.set_at < timedelta(minutes=1)
    set_label(kernel.store, kernel.clock, "paper", first)
    assert pinned_by(kernel, "paper") == first


def test_a_label_moves_to_a_snapshot_that_stands_already(kernel):
    found = kernel.snapshot().snapshot_id
    assert kernel.snapshot(label="one").snapshot_id == found
    assert kernel.snapshot(label="two").snapshot_id == found
    assert labels_by_snapshot(kernel.store) == {found: ["one", "two"]}
    listed = kernel.lake().snapshots().row(0, named=True)
    assert (listed["labels"], listed["pin"], listed["note"]) == (["one", "two"], "pinned", None)


def test_a_label_of_an_older_manifest_is_shown_as_a_note(kernel):
    manifest = kernel.snapshot()
    path = kernel.root / f"snapshots/{manifest.snapshot_id}.json"
    told = {**json.loads(path.read_text()), "label": "before the paper"}
    del told["beside_sha256"]
    path.write_text(json.dumps(told))
    listed = kernel.lake().snapshots().row(0, named=True)
    assert (listed["labels"], listed["note"]) == ([], "before the paper")


def test_abbreviations_name_a_snapshot_while_they_name_one_only(kernel):
    first = kernel.snapshot().snapshot_id
    digits = first.rpartition("-")[2]
    for text in (first, first[:10], first[:-1], digits, digits[:4]):
        assert pinned_by(kernel, text) == first
    for text in (first[:9], digits[:3], first + "0", "", "-"):
        with pytest.raises(UnknownSnapshotError):
            kernel.lake(snapshot=text)
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot().snapshot_id
    with pytest.raises(AmbiguousSnapshotError, match="any of 2 snapshots") as error:
        kernel.lake(snapshot=first[:10])
    assert error.value.matches == sorted([first, second])
    assert error.value.exit_code == 2
    assert first in error.value.remedy
    assert pinned_by(kernel, digits) == first


@pytest.mark.parametrize(
    "text",
    ["x", "../lake", "snapshots/x", "a/../b", "2026-04-01-zzzzzzzz", "no\0thing", "ü", "*",
     "2026-04-01-00000000", "a" * 300, "-", ".", "..", "2026-04-01-", "x\ny"],
)  # fmt: skip
def test_a_name_of_nothing_is_refused_and_the_nearest_offered(kernel, text):
    found = kernel.snapshot(label="thesis").snapshot_id
    kernel.publish([Row(3, 9.0)])
    kernel.snapshot()
    if found.startswith(text):
        text = "2026-04-01-0"
    with pytest.raises((UnknownSnapshotError, AmbiguousSnapshotError)) as error:
        kernel.lake(snapshot=text)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("near", ["thesi", "Thesis", "thesis2"])
def test_a_label_that_is_nearly_right_is_offered(kernel, near):
    kernel.snapshot(label="thesis")
    with pytest.raises(UnknownSnapshotError, match="Did you mean thesis"):
        kernel.lake(snapshot=near)


@pytest.mark.parametrize(
    "name",
    ["", "Paper", "a b", "../x", "x/y", ".x", "-x", "ü", "a" * 65, "x\n",
     "2026-04-01", "2026-04-01-", "2026-04-01-3f9ac2d1", "2026-04-01-3f", "3f9ac2d1", "beef"],
)  # fmt: skip
def test_a_label_is_no_path_and_no_id(kernel, name):
    with pytest.raises(RequestError):
        kernel.snapshot(label=name)
    assert not (kernel.root / "snapshots").exists()
    found = kernel.snapshot().snapshot_id
    with pytest.raises(RequestError):
        set_label(kernel.store, kernel.clock, name, found)
    assert every_label(kernel.store) == []


def test_a_label_whose_snapshot_or_file_is_not_right_says_so(kernel):
    found = kernel.snapshot(label="paper").snapshot_id
    with pytest.raises(UnknownSnapshotError):
        set_label(kernel.store, kernel.clock, "other", "2026-04-01-00000000")
    manifest = kernel.root / f"snapshots/{found}.json"
    manifest.rename(kernel.root / "away.json")
    with pytest.raises(UnknownSnapshotError, match=f"stands for {found}"):
        kernel.lake(snapshot="paper")
    (kernel.root / "labels/paper.json").write_text("{}")
    with pytest.raises(ChecksumError, match=r"paper\.json is not a label"):
        kernel.lake(snapshot="paper")


def test_an_older_id_is_found_though_a_label_would_shadow_it(kernel):
    """An exact id is looked for before labels, whatever stands in the folder of labels."""
    first = kernel.snapshot().snapshot_id
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot().snapshot_id
    kernel.store.put(
        f"labels/{first}.json",
        json.dumps({"snapshot_id": second, "set_at": "2026-04-01", "set_by": "x",
                    "previous": None}).encode(),
    )  # fmt: skip
    assert resolve_snapshot(kernel.store, first).snapshot_id == first


def test_a_snapshot_of_some_tables_says_that_it_lacks_the_others(kernel):
    kernel.land(response_of(b"[1]"))
    whole = kernel.snapshot()
    part = kernel.snapshot(members=[LEDGER.name, BARS.name])
    assert part.snapshot_id != whole.snapshot_id
    assert set(part.tables) == {BARS.name, LEDGER.name}
    lk = kernel.lake(snapshot=part.snapshot_id)
    heads = kernel.lake()
    assert lk.bars(BTC, timeframe="1m").collect().equals(heads.bars(BTC, timeframe="1m").collect())
    assert lk.ledger(BTC).equals(heads.ledger(BTC))
    for work in (
        lambda: lk.scan(RESPONSES.name),
        lambda: lk.bar_history(BTC, timeframe="1m"),
        lambda: part.view(RESPONSES.name),
    ):
        with pytest.raises(TableNotPinnedError, match="does not pin") as error:
            work()
        assert BARS.name in error.value.remedy
    assert verify(kernel.store, part, level="deep").files == 2
    stored = json.loads((kernel.root / f"snapshots/{part.snapshot_id}.json").read_text())
    assert stored["format"] == 2
    again = kernel.snapshot(members=[BARS.name, LEDGER.name, BARS.name])
    assert again.snapshot_id == part.snapshot_id
    assert kernel.snapshot(members=MEMBERS).snapshot_id == whole.snapshot_id


def test_bars_alone_answer_what_bars_alone_can_answer(kernel):
    lk = kernel.lake(snapshot=kernel.snapshot(members=[BARS.name]).snapshot_id)
    assert lk.bars(BTC, timeframe="1m").collect().height == 10
    assert lk.scan(BARS.name).collect().height == 10
    for work in (lk.ledger, lambda: lk.bars("ETH-USDT-SPOT.BINANCE", timeframe="1m")):
        with pytest.raises(TableNotPinnedError, match=r"ops\.ledger"):
            work()


def test_a_table_that_did_not_exist_yet_reads_as_empty_and_ops_runs_is_no_member(kernel):
    pinned = kernel.snapshot().snapshot_id
    kernel.land(response_of(b"[1]"))
    lk = kernel.lake(snapshot=pinned)
    assert lk.scan(RESPONSES.name).collect().is_empty()
    with pytest.raises(TableNotPinnedError, match=r"does not pin ops\.runs"):
        lk.scan(RUNS.name).collect()


@pytest.mark.parametrize("members", [[], [RUNS.name], ["ops.deletions", BARS.name]])
def test_members_that_are_no_data_are_refused(kernel, members):
    with pytest.raises(RequestError, match=r"no part of the data|No table"):
        kernel.snapshot(members=members)


def test_members_that_are_no_table_or_hold_nothing_are_refused(kernel):
    with pytest.raises(UnknownTableError, match=r"Did you mean silver\.bars"):
        kernel.snapshot(members=["silver.bar"])
    with pytest.raises(RequestError, match="holds nothing yet"):
        kernel.snapshot(members=[RESPONSES.name])


def test_creating_what_was_given_up_pins_it_again(kernel):
    manifest = kernel.snapshot()
    asked = request_unpin(kernel.tables, manifest, why="no use")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    assert not is_pinned(kernel.store, manifest.snapshot_id)
    assert kernel.snapshot().snapshot_id == manifest.snapshot_id
    assert is_pinned(kernel.store, manifest.snapshot_id)
    assert load_manifest(kernel.store, manifest.snapshot_id) == manifest
