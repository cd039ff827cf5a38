"""Promises of a snapshot that no other test states: code, quality, order, cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from kernel_support import (
    BTC,
    ETH,
    Kernel,
    Row,
    audits_of,
    quarantine_of,
    response_of,
    seal_early,
    series,
)

import contracts.tables
from contracts.tables import AUDITS, BARS, LEDGER, QUARANTINE, State
from lake.manifest import load_manifest
from lake.quality_summary import quality_summary
from lake.store import Store


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.land(response_of(b"[1]"))
    made.publish(series(range(20)))
    made.observe(0, 20)
    return made


# 8: code and contracts


def test_other_code_or_another_contract_gives_another_id(kernel, monkeypatch):
    before = kernel.snapshot()
    assert set(before.content["contracts"]) == set(before.tables)
    assert before.content["contracts"][BARS.name] == BARS.version
    assert before.content["code"]["tidemark"]
    assert set(before.beside["engines"]) == {"polars", "deltalake"}
    with monkeypatch.context() as patch:
        patch.setattr("lake.snapshots.code_version", lambda: "99.0")
        other = kernel.snapshot()
    assert other.snapshot_id != before.snapshot_id
    assert other.tables == before.tables
    with monkeypatch.context() as patch:
        later = replace(BARS, version=BARS.version + 1)
        patch.setitem(contracts.tables.TABLES, BARS.name, later)
        changed = Kernel(kernel.root).snapshot()
    assert changed.snapshot_id not in (before.snapshot_id, other.snapshot_id)
    assert changed.content["contracts"][BARS.name] == BARS.version + 1
    assert kernel.snapshot().snapshot_id == before.snapshot_id


# 9: quality


def test_the_state_of_quality_travels_with_the_data(kernel, tmp_path):
    kernel.observe(20, 25, State.MISSING)
    kernel.quarantine(quarantine_of([21]))
    kernel.audit(audits_of(["closed"]))
    manifest = kernel.snapshot()

    def told(lk):
        ledger = lk.ledger(BTC, timeframe="1m", start="2026-03-24", end="2026-03-24T00:30Z")
        return (
            ledger.select("state", "span_start", "span_end").rows(),
            lk.scan(QUARANTINE.name).collect().rows(),
            lk.scan(AUDITS.name).collect().rows(),
        )

    before = told(kernel.lake(snapshot=manifest.snapshot_id))
    assert [row[0] for row in before[0]] == ["present", "missing", "unfetched"]
    short = quality_summary(kernel.store, manifest)
    seconds = {each["state"]: each["seconds"] for each in short["ledger"]}
    assert seconds == {"present": 1200, "missing": 300}
    assert sum(each["rows"] for each in short["quarantine"]) == 2  # one per reason
    assert [each["audit"] for each in short["audits"]] == ["closed"]

    kernel.step(hours=1)
    kernel.publish([Row(minute, 1.0) for minute in range(20, 25)])
    kernel.observe(20, 25)
    kernel.quarantine(quarantine_of([22]))
    kernel.audit(audits_of(["closed", "ordered"]))
    assert told(kernel.lake()) != before
    assert told(kernel.lake(snapshot=manifest.snapshot_id)) == before
    copy = kernel.copy(tmp_path / "copy")
    assert told(copy.lake(snapshot=manifest.snapshot_id)) == before


# 11: order and threads

READ = """
import hashlib, sys, lake
lk = lake.open(sys.argv[1], snapshot=sys.argv[2])
told = hashlib.sha256()
for frame in (
    lk.bars("*", timeframe="1m"),
    lk.bars("*", timeframe="1m", known_at=sys.argv[3]),
    lk.bar_history("*", timeframe="1m"),
    lk.scan("silver.bars"),
):
    rows = frame.collect()
    told.update(f"{rows.schema}{rows.write_ndjson()}".encode())
told.update(lk.ledger().write_ndjson().encode())
print(told.hexdigest())
"""


def test_a_read_is_the_same_on_one_thread_and_on_many(kernel, monkeypatch):
    seal_early(monkeypatch, 6, fan_in=50, series=4)
    for first in range(20, 60, 4):
        kernel.publish(series(range(first, first + 5), instrument=ETH if first % 8 else BTC))
    known = kernel.step(hours=1)
    kernel.publish([Row(minute, 7.0, instrument=ETH) for minute in range(20, 40)])
    name = kernel.snapshot().snapshot_id

    def read(threads):
        done = subprocess.run(
            [sys.executable, "-c", READ, str(kernel.root), name, known.isoformat()],
            env=os.environ | {"POLARS_MAX_THREADS": str(threads)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert read(1) == read(2) == read(8)


def test_rows_come_in_the_order_of_the_key_however_files_lie(tmp_path, monkeypatch):
    """A lake that was written in one piece and one written in many read alike, row for row."""
    rows = [*series(range(40)), *series(range(40), instrument=ETH)]
    whole, pieces = Kernel(tmp_path / "whole"), Kernel(tmp_path / "pieces")
    whole.publish(rows)
    seal_early(monkeypatch, 5, fan_in=3, series=4)
    for first in (70, 10, 40, 0, 30, 60, 20, 50):
        pieces.publish(rows[first : first + 10])
    assert len(pieces.tables[BARS.name].head().files) > 1
    first, second = (
        made.lake(snapshot=made.snapshot().snapshot_id).bars("*", timeframe="1m").collect()
        for made in (whole, pieces)
    )
    assert first.write_ndjson() == second.write_ndjson()
    assert first.schema == second.schema
    assert first.select("instrument_id", "open_time").rows() == sorted(
        first.select("instrument_id", "open_time").rows()
    )


# 12: cost


def counted(kernel, monkeypatch):
    """Create a snapshot; return what it asked of the store, and the bytes that it wrote."""
    asked, written = Counter(), Counter()

    def counting(name, original):
        def call(store, path, *arguments):
            kind = "log" if "_delta_log" in path else path.partition("/")[0]
            asked[name, kind] += 1
            written[kind] += len(arguments[0]) if name in ("put", "create") else 0
            return original(store, path, *arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("put", "create", "get", "tail", "listing"):
            patch.setattr(Store, name, counting(name, getattr(Store, name)))
        kernel.snapshot()
    return asked, written


def test_creating_one_copies_nothing_and_costs_metadata_only(lake_root, monkeypatch):
    """Ten times the rows cost no more; ten times the files cost a longer manifest."""
    seal_early(monkeypatch, 1, fan_in=1_000)
    kernel = Kernel(lake_root)
    kernel.observe(0, 20)

    def grown(files, rows, start):
        for index in range(files):
            first = start + index * rows
            kernel.publish(series(range(first, first + rows)))
        return counted(kernel, monkeypatch)

    few, few_written = grown(3, 2, 0)
    wide, wide_written = grown(3, 400, 1_000)
    many, many_written = grown(30, 2, 10_000)
    for asked, written in ((few, few_written), (wide, wide_written), (many, many_written)):
        assert set(written) - {"snapshots", "leases"} <= {
            kind for (name, kind) in asked if name not in ("put", "create")
        }
        assert not any(kind in ("silver", "bronze") for name, kind in asked if name != "listing")
        assert asked["create", "snapshots"] == 1
        assert sum(asked[name, "snapshots"] for name in ("put", "create")) == 1
    assert wide == few
    requests = sum(many.values()) - sum(few.values())
    assert requests <= 30  # at most one look at the log per commit that was added
    manifest = load_manifest(kernel.store, kernel.snapshot().snapshot_id)
    files = sum(len(pinned["files"]) for pinned in manifest.tables.values())
    per_file = many_written["snapshots"] / files
    assert per_file < 2_000
    assert LEDGER.name in manifest.tables
    assert json.loads(manifest.to_json())["content"]["tables"][BARS.name]["rows"] == 1_266
