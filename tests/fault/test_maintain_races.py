"""Maintenance beside writers, snapshots and itself: nobody loses, nothing doubles."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from kernel_support import ETH, KNOWN, Kernel, Row, series
from processes import child, finished

import lake.snapshots
import lake.vacuum
from contracts.errors import CommitConflictError
from contracts.tables import BAR_REVISIONS, BARS, DELETIONS
from flows.maintain import PARTS, MaintainRequest, maintain
from flows.work import Progress, Work
from lake.pins import confirm_unpin, is_pinned, pin, request_unpin
from lake.rowhash import combine
from lake.scan import read_files
from lake.settings import Settings
from lake.vacuum import Rules, sweep
from lake.verify import verify

LATER = KNOWN + timedelta(days=365)
ZERO = timedelta(0)
ROUNDS = 30


def maintained(kernel, *, grace, only=PARTS):
    told = Settings(fsync=False)
    run = Work(kernel.tables, kernel.clock, f"run-{time.monotonic_ns()}", told, Progress())
    request = MaintainRequest(apply=True, only=tuple(only), grace=grace, lease_grace=ZERO)
    return asyncio.run(maintain(run, request))


def early(patch):
    patch("lake.layout.open_rows", lambda _: 4)
    patch("lake.layout.series_rows", lambda _: 30)


def write(root, name):
    """Run in the child: append and revise bars of a closed year, round after round."""
    with pytest.MonkeyPatch.context() as patch:
        early(patch.setattr)
        kernel = Kernel(Path(root), known=LATER)
        for number in range(ROUNDS):
            kernel.publish(series([number], instrument=name))
            kernel.step(seconds=1)
            kernel.publish([Row(number // 2, 500.0 + number, instrument=name)])
            kernel.step(seconds=1)
    sys.stdout.write("written")


def last_written(name):
    told = {row.minute: row.close for row in series(range(ROUNDS), instrument=name)}
    return told | {number // 2: 500.0 + number for number in range(ROUNDS)}


def test_two_writers_lose_and_double_nothing_beside_maintenance(tmp_path):
    root = tmp_path / "lake"
    Kernel(root, known=LATER).publish(series(range(3), instrument="SOL-USDT-SPOT.BINANCE"))
    names = ("BTC-USDT-SPOT.BINANCE", ETH)
    writers = [child(Path(__file__), "write", root, name) for name in names]
    done = []
    while any(each.poll() is None for each in writers):
        done += maintained(Kernel(root, known=LATER), grace=timedelta(seconds=5)).actions
    assert [finished(each) for each in writers] == ["written", "written"]
    kernel = Kernel(root, known=LATER)
    maintained(kernel, grace=ZERO)
    bars = kernel.rows(BARS)
    assert bars.select(BARS.key).is_unique().all()
    for name in names:
        own = bars.filter(instrument_id=name).sort("open_time")
        assert dict(enumerate(own["close"])) == last_written(name)
    revisions = kernel.rows(BAR_REVISIONS)
    assert revisions.select(BAR_REVISIONS.key).is_unique().all()
    assert revisions.height == sum(len(last_written(name)) for name in names)
    assert any(each.part == "compact" for each in done)


def test_every_snapshot_made_beside_a_vacuum_without_grace_holds(tmp_path):
    root = tmp_path / "lake"
    Kernel(root, known=LATER).publish(series(range(10)))
    stop = threading.Event()
    went: list[int] = []

    def revise_and_sweep():
        kernel, number = Kernel(root, known=LATER), 0
        while not stop.is_set():
            kernel.step(seconds=1)
            kernel.publish([Row(number % 10, 300.0 + number)])
            number += 1
            rules = Rules(grace=ZERO)
            went.extend([number] * len(sweep(kernel.tables, rules, run_id=f"r{number}").doomed))

    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(revise_and_sweep)
        pinning = Kernel(root, known=LATER)
        made = []
        deadline = time.monotonic() + 60
        while (len(made) < 20 or not went) and time.monotonic() < deadline:
            made.append(pinning.snapshot())
            time.sleep(0.05 if went else 0.7)
        stop.set()
        sweeping.result(timeout=120)
    assert went
    assert len({each.snapshot_id for each in made}) > 1
    for manifest in made:
        assert verify(pinning.store, manifest, level="deep").files


def test_maintenances_at_once_do_what_one_does(tmp_path, monkeypatch):
    early(monkeypatch.setattr)
    root = tmp_path / "lake"
    kernel = Kernel(root)
    for first in range(0, 40, 5):
        kernel.publish(series(range(first, first + 5)))
    before = kernel.rows(BARS)
    hashed = combine(verified_hashes(kernel))

    with ThreadPoolExecutor(3) as pool:
        runs = [
            pool.submit(maintained, Kernel(root, known=LATER), grace=timedelta(minutes=1))
            for _ in range(3)
        ]
        for each in runs:
            each.result(timeout=120)
    late = Kernel(root, known=LATER)
    maintained(late, grace=ZERO)
    assert late.rows(BARS).equals(before)
    assert combine(verified_hashes(late)) == hashed
    assert len(late.tables[BARS.name].head().files) == 1
    assert late.rows(DELETIONS).select(DELETIONS.key).is_unique().all()


def verified_hashes(kernel):
    from lake.rowhash import frame_hash

    files = kernel.tables[BARS.name].head().files
    return [frame_hash(read_files(kernel.store, BARS, [entry])) for entry in files]


def test_a_reader_that_began_before_ends_within_the_grace(tmp_path, monkeypatch):
    early(monkeypatch.setattr)
    kernel = Kernel(tmp_path / "lake")
    for first in range(0, 40, 5):
        kernel.publish(series(range(first, first + 5)))
    before = kernel.rows(BARS)
    scan = kernel.lake().scan(BARS.name)
    maintained(Kernel(kernel.root, known=LATER), grace=timedelta(minutes=1))
    assert scan.sort(BARS.key).collect().equals(before)


def test_a_vacuum_in_the_midst_of_a_snapshot_deletes_nothing_of_it(tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "lake", known=LATER)
    kernel.publish(series(range(10)))
    look = lake.snapshots._check_files
    swept = []

    def raced(store, views):
        if not swept:
            other = Kernel(kernel.root, known=LATER)
            other.publish([Row(3, 300.0)])
            swept.append(sweep(other.tables, Rules(grace=ZERO), run_id="run"))
        look(store, views)

    monkeypatch.setattr("lake.snapshots._check_files", raced)
    manifest = kernel.snapshot()
    assert [each.kind for each in swept[0].held_up] == ["snapshot"]
    assert swept[0].doomed == ()
    assert verify(kernel.store, manifest, level="deep").files
    sweep(kernel.tables, Rules(grace=ZERO), run_id="later")
    assert verify(kernel.store, manifest, level="deep").files


def test_what_is_pinned_again_after_the_survey_stays(tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "lake", known=LATER)
    kernel.publish(series(range(10)))
    manifest = kernel.snapshot()
    kernel.step(seconds=1)
    kernel.publish([Row(3, 300.0)])
    asked = request_unpin(kernel.tables, manifest, why="done")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    held = []
    own_lease = lake.vacuum._own_lease

    def leased(tables):
        held.append(tables)
        if len(held) == 2:
            pin(kernel.tables, manifest)
        return own_lease(tables)

    monkeypatch.setattr("lake.vacuum._own_lease", leased)
    assert sweep(kernel.tables, Rules(grace=ZERO), run_id="run").doomed == ()
    assert len(held) == 2
    assert verify(kernel.store, manifest, level="deep").files


def test_who_pins_again_while_files_are_being_deleted_is_refused(tmp_path, monkeypatch):
    kernel = Kernel(tmp_path / "lake", known=LATER)
    kernel.publish(series(range(10)))
    manifest = kernel.snapshot()
    kernel.step(seconds=1)
    kernel.publish([Row(3, 300.0)])
    asked = request_unpin(kernel.tables, manifest, why="done")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    still = lake.vacuum._still_loose

    def raced(tables, pins, batch):
        chosen = still(tables, pins, batch)
        with pytest.raises(CommitConflictError, match="Maintenance"):
            pin(kernel.tables, manifest)
        return chosen

    monkeypatch.setattr("lake.vacuum._still_loose", raced)
    assert sweep(kernel.tables, Rules(grace=ZERO), run_id="run").doomed
    assert not is_pinned(kernel.store, manifest.snapshot_id)
