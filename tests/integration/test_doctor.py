"""The doctor finds what is wrong with a lake, names it, and mends what it safely can."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta

import pytest
from deltalake import DeltaTable
from kernel_support import KNOWN, Kernel, Row, response_of, series

from contracts.errors import LakeNotFoundError, TornLogError
from contracts.tables import BARS, LEDGER, RESPONSES
from contracts.time import SystemClock
from flows.cli.entry import main
from lake.doctor import MENDED, NEEDS_YOU, OK, examine, gravest
from lake.labels import set_label
from lake.leases import lease
from lake.store import Store
from lake.vacuum import Rules, sweep


@pytest.fixture
def kernel(tmp_path):
    kernel = Kernel(tmp_path / "lake")
    kernel.land(response_of(b"[1]"))
    kernel.publish(series(range(10)))
    kernel.observe(0, 10)
    kernel.snapshot()
    kernel.publish([Row(3, 200.0)])
    return kernel


def examined(kernel, *, mend=False, clock=None):
    store = Store(kernel.root, fsync=False)
    return examine(store, clock or kernel.clock, mend=mend)


def needing(findings):
    return [(each.check, each.code) for each in findings if each.verdict == NEEDS_YOU]


def only(findings):
    found = [each for each in findings if each.verdict == NEEDS_YOU]
    assert len(found) == 1, found
    return found[0]


def test_a_sound_lake_is_sound_and_nothing_is_changed_or_left(kernel):
    def state():
        files = (path for path in kernel.root.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    findings = examined(kernel)
    assert needing(findings) == []
    assert gravest(findings) == 0
    checks = {each.check for each in findings}
    assert checks >= {
        "lake",
        "tables",
        "properties",
        "logs",
        "files",
        "snapshots",
        "clock",
        "store",
    }
    assert state() == before


def test_an_empty_lake_is_sound(tmp_path):
    assert needing(examined(Kernel(tmp_path / "lake"))) == []


def test_no_lake_is_refused(tmp_path):
    with pytest.raises(LakeNotFoundError):
        examine(Store(tmp_path / "none"), SystemClock())
    assert main(["doctor", "--root", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "properties",
    [
        {"delta.logRetentionDuration": "interval 1 days"},
        {"delta.enableExpiredLogCleanup": "true"},
        {"delta.logRetentionDuration": "interval 0 days", "delta.enableExpiredLogCleanup": "true"},
    ],
)
def test_a_log_that_delta_would_clean_up_is_found_and_mended(kernel, properties):
    DeltaTable(str(kernel.root / BARS.path)).alter.set_table_properties(properties)
    found = only(examined(kernel))
    assert found.check == "properties"
    assert "could destroy a pin" in found.found
    assert "--mend" in found.remedy
    mended = examined(kernel, mend=True)
    assert [each.check for each in mended if each.verdict == MENDED] == ["properties"]
    assert gravest(mended) == 0
    assert needing(examined(kernel)) == []
    rows = kernel.rows(BARS)
    fresh = Kernel(kernel.root)
    for minute in range(20, 45):
        fresh.publish(series([minute]))
    commits = list((kernel.root / BARS.path / "_delta_log").glob("*.json"))
    assert len(commits) == fresh.tables[BARS.name].head().version + 1
    assert rows.height + 25 == fresh.rows(BARS).height


def test_another_schema_is_named(kernel):
    log = kernel.log_of(LEDGER, 0)
    log.write_text(log.read_text().replace('\\"name\\":\\"state\\"', '\\"name\\":\\"status\\"'))
    assert ("tables", "settings.lake_format") in needing(examined(kernel))


@pytest.mark.parametrize("content", [b"", b'{"add":{"pa'])
def test_a_torn_commit_is_named(kernel, content):
    kernel.log_of(BARS, kernel.tables[BARS.name].head().version).write_bytes(content)
    findings = examined(kernel)
    assert ("logs", "storage.torn_log") in needing(findings)
    assert ("tables", "storage.torn_log") in needing(findings)
    assert gravest(findings) == 5


def test_a_missing_commit_is_named(kernel):
    kernel.log_of(BARS, 1).unlink()
    assert ("logs", "storage.torn_log") in needing(examined(kernel))


@pytest.mark.parametrize(
    ("harm", "code"), [("unlink", "storage.snapshot_incomplete"), ("cut", "storage.checksum")]
)
def test_a_file_that_is_missing_or_cut_short_is_named_by_head_and_pin(kernel, harm, code):
    path = kernel.file_of(RESPONSES)
    if harm == "unlink":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    findings = examined(kernel)
    assert needing(findings) == [("files", code), ("snapshots", code)]
    assert all(path.name in each.found for each in findings if each.verdict == NEEDS_YOU)
    assert gravest(findings) == 5


def test_a_file_that_only_a_pin_needs_is_missed(kernel):
    heads = {entry.path for entry in kernel.tables[BARS.name].head().files}
    files = (kernel.root / BARS.path).rglob("part-*.parquet")
    (gone,) = [
        path for path in files if path.relative_to(kernel.root / BARS.path).as_posix() not in heads
    ]
    gone.unlink()
    assert needing(examined(kernel)) == [("snapshots", "storage.snapshot_incomplete")]


def test_a_file_that_was_moved_aside_is_put_back(kernel):
    path = kernel.file_of(BARS)
    path.rename(path.with_name(f"{path.name}#0badcafe"))
    assert needing(examined(kernel)) == [("files", "storage.snapshot_incomplete")]
    mended = examined(kernel, mend=True)
    assert [each.check for each in mended if each.verdict == MENDED] == ["files"]
    assert needing(mended) == []
    assert path.exists()


def test_a_manifest_that_was_edited_by_hand_is_named(kernel):
    (path,) = (kernel.root / "snapshots").glob("*.json")
    path.write_bytes(path.read_bytes().replace(b'"rows": 10', b'"rows": 11', 1))
    findings = examined(kernel)
    assert ("snapshots", "storage.checksum") in needing(findings)
    assert path.stem in "".join(each.found for each in findings)


def test_a_manifest_of_a_newer_format_is_named(kernel):
    (path,) = (kernel.root / "snapshots").glob("*.json")
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps(told | {"format": 99}))
    assert ("snapshots", "settings.lake_format") in needing(examined(kernel))


def test_a_label_of_a_snapshot_that_is_gone_is_named(kernel):
    (path,) = (kernel.root / "snapshots").glob("*.json")
    set_label(kernel.store, kernel.clock, "paper", path.stem)
    assert needing(examined(kernel)) == []
    path.unlink()
    assert needing(examined(kernel)) == [("names", "request.unknown_snapshot")]


def test_leases_and_leftovers_are_told_and_need_nobody(kernel):
    dead = kernel.root / "leases" / "dead.json"
    dead.parent.mkdir(exist_ok=True)
    dead.write_text('{"kind":"snapshot","created_at":"2020-01-01T00:00:00Z"}')
    staged = kernel.file_of(BARS).with_name("part-aa.parquet#1")
    staged.write_bytes(b"half")
    for path in (dead, staged):
        os.utime(path, (0, 0))
    with lease(kernel.store, kernel.clock, "import"):
        findings = examined(kernel)
    assert needing(findings) == []
    told = " ".join(each.found for each in findings if each.check in ("leases", "leftovers"))
    assert "import since" in told
    assert "has not come back" in told
    assert "1 files of crashed writes" in told


class Skewed(SystemClock):
    """A machine's clock that is wrong."""

    def __init__(self, by):
        self._by = by

    def storage(self):
        return super().storage() + self._by


@pytest.mark.parametrize("by", [timedelta(minutes=10), timedelta(minutes=-10)])
def test_a_clock_that_is_wrong_is_found(kernel, by):
    assert needing(examined(kernel, clock=Skewed(by))) == [("clock", "data.clock_regression")]


def test_knowledge_of_the_future_is_found(tmp_path):
    ahead = Kernel(tmp_path / "lake", known=KNOWN + timedelta(days=36_500))
    ahead.publish(series(range(3)))
    found = only(examined(ahead, clock=SystemClock()))
    assert "yet to come" in found.found


def test_a_store_that_loses_creates_is_found(kernel, monkeypatch):
    def careless(self, path, data):
        self.put(path, data)
        return True

    monkeypatch.setattr(Store, "create", careless)
    found = only(examined(kernel))
    assert (found.check, found.exit_code) == ("store", 2)


def test_a_broken_lake_json_ends_the_examination(kernel):
    (kernel.root / "lake.json").write_text("{")
    findings = examined(kernel)
    assert needing(findings) == [("lake", "settings.lake_format")]
    assert len(findings) == 1


def test_the_command_prints_lines_or_json_and_ends_with_the_gravest_code(kernel, capsys):
    root = str(kernel.root)
    assert main(["doctor", "--root", root]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(OK)
    assert "the lake is sound" in printed.err
    kernel.file_of(RESPONSES).unlink()
    assert main(["doctor", "--root", root, "--format", "json"]) == 5
    rows = json.loads(capsys.readouterr().out)
    assert {row["verdict"] for row in rows} == {OK, NEEDS_YOU}
    assert all(row["remedy"] for row in rows if row["verdict"] == NEEDS_YOU)


def test_a_table_whose_log_was_lost_is_named_and_none_of_its_files_goes(kernel):
    shutil.rmtree(kernel.root / BARS.path / "_delta_log")
    files = set((kernel.root / BARS.path).rglob("*.parquet"))
    found = only(examined(kernel))
    assert (found.check, found.code) == ("tables", "storage.torn_log")
    assert "no log" in found.found
    assert BARS.name in found.found
    reopened = Kernel(kernel.root)
    with pytest.raises(TornLogError):
        sweep(reopened.tables, Rules(timedelta(0), lease_grace=timedelta(0)), run_id="test")
    assert set((kernel.root / BARS.path).rglob("*.parquet")) == files
