"""A pinned lake reads the same for ever, whatever happens to the heads."""

from __future__ import annotations

import json
import shutil

import pytest
from kernel_support import (
    BTC,
    KNOWN,
    Kernel,
    Row,
    audits_of,
    quarantine_of,
    response_of,
    seal_early,
    series,
)

import lake.snapshots
from contracts.errors import (
    ChecksumError,
    LakeFormatError,
    RequestError,
    SnapshotIncompleteError,
)
from contracts.tables import BARS, RUNS
from lake.manifest import content_hash, load_manifest
from lake.parts import read_row_hash
from lake.pinlog import PinState, pin_states
from lake.quality_summary import quality_summary
from lake.rowhash import combine
from lake.verify import verify


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.land(response_of(b"[1]"))
    made.quarantine(quarantine_of([1, 2]))
    made.audit(audits_of(["closed"]))
    made.publish(series(range(20)))
    made.observe(0, 20)
    made.step(hours=1)
    made.publish([Row(3, 200.0)])
    return made


def answers(lk):
    """Return answers of every kind, byte for byte."""
    frames = [
        lk.bars(BTC, timeframe="1m").collect(),
        lk.bars("*", timeframe="1m", known_at=KNOWN, columns=["close", "open_time"]).collect(),
        lk.bar_history(BTC, timeframe="1m").collect(),
        lk.scan("silver.bars").collect(),
        lk.scan("bronze.responses").collect(),
        lk.ledger(BTC, timeframe="1m", start="2026-03-24", end="2026-03-25"),
    ]
    return [(dict(frame.schema), frame.write_ipc_stream(None).getvalue()) for frame in frames]


def change_everything(kernel):
    kernel.step(hours=1)
    kernel.land(response_of(b"[2]", at=kernel.clock.known()))
    kernel.quarantine(quarantine_of([3]))
    kernel.publish([Row(minute, 300.0 + minute) for minute in range(25)])
    kernel.observe(20, 25)
    for minute in range(30, 45):
        kernel.publish([Row(minute, 1.0)])


def test_a_pinned_read_is_byte_equal_after_everything_changed(kernel, monkeypatch):
    pinned = kernel.snapshot(label="before")
    before = answers(kernel.lake(snapshot=pinned.snapshot_id))
    assert before == answers(kernel.lake())
    change_everything(kernel)
    seal_early(monkeypatch, 5, fan_in=2, series=4)
    change_everything(kernel)
    lk = kernel.lake(snapshot=pinned.snapshot_id, verify=True)
    assert answers(lk) == before
    assert answers(lk) == before
    assert answers(kernel.lake()) != before
    assert verify(kernel.store, pinned, level="deep").files == pinned_files(pinned)
    assert lk.snapshot_id == pinned.snapshot_id


def pinned_files(manifest):
    return sum(len(pinned["files"]) for pinned in manifest.tables.values())


def test_a_pinned_read_needs_no_delta_log(kernel, tmp_path):
    pinned = kernel.snapshot().snapshot_id
    before = answers(kernel.lake(snapshot=pinned))
    change_everything(kernel)
    copy = kernel.copy(tmp_path / "copy")
    logs = list(copy.root.rglob("_delta_log"))
    for log in logs:
        shutil.rmtree(log)
    assert len(logs) == 6
    assert answers(copy.lake(snapshot=pinned, verify=True)) == before
    assert verify(copy.store, load_manifest(copy.store, pinned), level="deep").level == "deep"


def test_a_manifest_says_what_it_pins(kernel):
    manifest = kernel.snapshot(label="first")
    assert kernel.snapshot(label="again").snapshot_id == manifest.snapshot_id
    told = json.loads((kernel.root / f"snapshots/{manifest.snapshot_id}.json").read_text())
    assert told["snapshot_id"].startswith("2026-04-01-")
    assert told["format"] == 1
    assert not {"label", "members"} & {*told, *told["content"]}
    assert told["origin"] == "live"
    assert RUNS.name not in told["content"]["tables"]
    bars = told["content"]["tables"][BARS.name]
    view = kernel.tables[BARS.name].head()
    assert (bars["version"], bars["rows"], len(bars["files"])) == (view.version, 20, 1)
    assert bars["schema"]["open_time"].startswith("Datetime")
    assert bars["key_range"]["open_time"] == ["2026-03-24T00:00:00Z", "2026-03-24T00:19:00Z"]
    hashes = [read_row_hash(kernel.store, BARS, entry) for entry in view.files]
    assert bars["logical_hash"] == combine(hashes)
    short = quality_summary(kernel.store, manifest)
    assert short["ledger"] == [
        {"venue": "binance", "kind": "bars", "timeframe": "1m", "state": "present",
         "instruments": 1, "seconds": 1200}
    ]  # fmt: skip
    assert short["quarantine"] == [
        {"table_name": "silver.bars", "venue": "binance", "reasons": reason, "rows": 2}
        for reason in ("high_below_low", "überlang")
    ]
    assert short["audits"][0]["batches"] == 1
    assert manifest.view(BARS.name) == view


def test_creating_one_commits_to_no_table_and_leaves_no_lease(kernel):
    versions = kernel.versions()
    files = set(kernel.root.rglob("*.parquet"))
    manifest = kernel.snapshot()
    assert kernel.versions() == versions
    assert set(kernel.root.rglob("*.parquet")) == files
    assert not list((kernel.root / "leases").iterdir())
    listed = kernel.lake().snapshots()
    assert listed["snapshot_id"].to_list() == [manifest.snapshot_id]
    assert listed["files"].to_list() == [pinned_files(manifest)]


def test_creating_one_reads_no_bars(kernel):
    """Row hashes come from the footers: the data pages may as well be gone."""
    kernel.snapshot()
    kernel.publish(series(range(20, 40)))
    path = kernel.file_of(BARS)
    content = bytearray(path.read_bytes())
    content[4:1000] = bytes(996)
    path.write_bytes(content)
    manifest = kernel.snapshot()
    with pytest.raises(ChecksumError, match=path.name):
        verify(kernel.store, manifest)


def test_the_first_one_of_an_empty_lake_is_refused(lake_root):
    kernel = Kernel(lake_root)
    for _ in range(2):
        with pytest.raises(RequestError, match="holds nothing yet"):
            kernel.snapshot()
        kernel.tables[BARS.name].create()
    assert not list((lake_root / "leases").iterdir())


def test_one_that_loses_a_file_while_it_is_made_is_not_left_pinned(kernel, monkeypatch):
    look, looks = lake.snapshots._check_files, []

    def lost(store, held):
        looks.append(held)
        if len(looks) == 2:
            kernel.file_of(BARS).rename(kernel.root / "aside")
        look(store, held)

    monkeypatch.setattr("lake.snapshots._check_files", lost)
    with pytest.raises(SnapshotIncompleteError, match="nothing was pinned"):
        kernel.snapshot()
    assert set(pin_states(kernel.store).values()) == {PinState.UNPINNED}


def test_one_that_takes_too_long_is_not_written(kernel, monkeypatch):
    monkeypatch.setattr("lake.snapshots.GRACE", -kernel.clock.known().resolution * 2_000_000)
    with pytest.raises(SnapshotIncompleteError, match="half the vacuum's grace"):
        kernel.snapshot()
    assert kernel.lake().snapshots().is_empty()


def edited(change):
    def tamper(path):
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return tamper


BESIDE = "beside_sha256"
TAMPERED = {
    "a row count": edited(lambda told: told["content"]["tables"][BARS.name].update(rows=19)),
    "a file's hash": edited(
        lambda told: told["content"]["tables"][BARS.name]["files"][0].update(path="part-0.parquet")
    ),
    "its format": edited(lambda told: told.update(format=2)),
    "no format": edited(lambda told: told.pop("format")),
    "no lake": edited(lambda told: told.pop("lake_id")),
    "another lake": edited(lambda told: told.update(lake_id="0" * 32)),
    "no date": edited(lambda told: told.pop("created_at")),
    "yesterday": edited(lambda told: (told.update(created_at="yesterday"), told.pop(BESIDE))),
    "a number": edited(lambda told: (told.update(created_by=7), told.pop(BESIDE))),
    "one thing more": edited(lambda told: told.update(note="mine")),
    "its id": edited(lambda told: told.update(snapshot_id="2026-04-01-00000000")),
    "no content": edited(lambda told: told.pop("content")),
    "a list": lambda path: path.write_text("[]"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "not text": lambda path: path.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("how", sorted(TAMPERED))
def test_a_tampered_manifest_is_refused(kernel, how):
    manifest = kernel.snapshot()
    path = kernel.root / f"snapshots/{manifest.snapshot_id}.json"
    TAMPERED[how](path)
    for work in (
        lambda: kernel.lake(snapshot=manifest.snapshot_id),
        lambda: kernel.lake().snapshots(),
        kernel.snapshot,
    ):
        with pytest.raises(ChecksumError, match=path.name) as error:
            work()
        assert "\n" not in str(error.value)


def test_a_manifest_of_another_snapshot_is_refused(kernel):
    first = kernel.snapshot().snapshot_id
    kernel.publish([Row(9, 1.0)])
    second = kernel.snapshot().snapshot_id
    folder = kernel.root / "snapshots"
    shutil.copy(folder / f"{first}.json", folder / f"{second}.json")
    with pytest.raises(ChecksumError, match=second):
        kernel.lake(snapshot=second)


def test_a_newer_manifest_is_refused_as_newer(kernel):
    manifest = kernel.snapshot()
    edited(lambda told: told.update(format=3, content=None))(
        kernel.root / f"snapshots/{manifest.snapshot_id}.json"
    )
    with pytest.raises(LakeFormatError, match="Upgrade"):
        kernel.lake(snapshot=manifest.snapshot_id)


def test_ids_that_share_their_first_digits_are_told_apart(kernel, monkeypatch):
    """Of seventeen states two share the first digit of their hashes; the later gets eight."""
    monkeypatch.setattr("lake.snapshots._HASH_DIGITS", (1, 8))
    ids = []
    for minute in range(20, 37):
        kernel.publish([Row(minute, 1.0)])
        manifest = kernel.snapshot()
        assert kernel.snapshot().snapshot_id == manifest.snapshot_id
        assert content_hash(manifest.content).startswith(manifest.snapshot_id.rpartition("-")[2])
        ids.append(manifest.snapshot_id)
    assert len(set(ids)) == 17
    assert {len(each.rpartition("-")[2]) for each in ids} == {1, 8}


def test_progress_is_told_file_by_file(kernel):
    manifest = kernel.snapshot()
    steps = []
    verify(kernel.store, manifest, on_progress=lambda done, total: steps.append((done, total)))
    total = pinned_files(manifest)
    assert steps == [(done, total) for done in range(1, total + 1)]
