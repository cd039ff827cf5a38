"""kill -9 before every storage operation of maintenance: nothing that is read changes, nothing
goes without its row in ops.deletions, and the next run ends where nobody died."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from kernel_support import (
    ETH,
    KNOWN,
    Kernel,
    Row,
    child,
    content,
    finished,
    response_of,
    series,
)

from contracts.tables import BARS, DELETIONS
from flows.maintain import MaintainRequest, maintain
from flows.work import Progress, Work
from lake.reach import PinnedFiles, head_files
from lake.settings import Settings
from lake.store import Store
from lake.verify import verify

LATER = KNOWN + timedelta(days=365)
ZERO = timedelta(0)


def start_lake(root):
    """Make a lake with a closed year in several files, a pin, revisions, and a leftover."""
    kernel = Kernel(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.layout.open_rows", lambda _: 5)
        patch.setattr("lake.layout.series_rows", lambda _: 0)
        kernel.land(response_of(b"[1]"))
        for first in range(0, 18, 6):
            kernel.publish(series(range(first, first + 6)) + series([first], instrument=ETH))
        kernel.observe(0, 18)
        kernel.snapshot()
        kernel.step(minutes=1)
        kernel.publish([Row(3, 200.0)])
        kernel.step(minutes=1)
        kernel.publish([Row(3, 201.0)])
        kernel.step(days=364)
        kernel.land(response_of(b"[2]", at=kernel.clock.known()))
    leftover = kernel.file_of(BARS).with_name(f"part-{'a' * 64}.parquet#0badcafe")
    leftover.write_bytes(b"half")


def work(kernel):
    settings = Settings(fsync=False, bronze_days=20)
    run = Work(kernel.tables, kernel.clock, f"run-{os.getpid()}", settings, Progress())
    request = MaintainRequest(apply=True, grace=ZERO, lease_grace=ZERO)
    return asyncio.run(maintain(run, request))


class Countdown:
    """Counts storage operations and dies, as kill -9 does, before the last of them."""

    def __init__(self, left):
        self.left, self.seen = left, 0
        self.lock = threading.Lock()

    def install(self, patch):
        for name in ("put", "create", "delete"):
            patch(Store, name, self._wrapped(getattr(Store, name)))
        for name in ("create", "create_write_transaction", "create_checkpoint"):
            patch(DeltaTable, name, self._wrapped(getattr(DeltaTable, name)))
        # A deletion moves aside, looks, and unlinks: it may die in between.
        for name in ("rename", "unlink"):
            patch(Path, name, self._wrapped(getattr(Path, name)))

    def _wrapped(self, original):
        def call(*arguments, **options):
            with self.lock:
                self.seen += 1
                if self.seen == self.left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call


def run_and_die(root, left):
    """Run in the child: maintain and die before operation ``left``."""
    kernel = Kernel(Path(root), known=LATER)
    Countdown(int(left)).install(setattr)
    work(kernel)
    sys.stdout.write("whole")


def objects(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("part-*") if path.is_file()}


def told_deleted(kernel):
    view = kernel.tables[DELETIONS.name].head()
    return set(kernel.rows(DELETIONS)["path"]) if view.version >= 0 else set()


def read(kernel):
    """Return what readers see, without the answers, of which some expire."""
    return {name: rows for name, rows in content(kernel).items() if name != "responses"}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    root = tmp_path_factory.mktemp("maintain") / "start"
    start_lake(root)
    return root


@pytest.fixture(scope="module")
def fault_free(started, tmp_path_factory):
    root = tmp_path_factory.mktemp("maintain") / "free"
    shutil.copytree(started, root)
    kernel, countdown = Kernel(root, known=LATER), Countdown(-1)
    with pytest.MonkeyPatch.context() as patch:
        countdown.install(patch.setattr)
        report = work(kernel)
    parts = {each.part for each in report.actions}
    assert {"compact", "retention", "vacuum", "leftovers"} <= parts
    return content(kernel), countdown.seen


def test_the_maintenance_touches_every_kind_of_operation(fault_free):
    assert 20 <= fault_free[1] <= 60


def test_killed_before_any_operation_and_run_again_nothing_differs(started, fault_free, tmp_path):
    expected, operations = fault_free
    before, seen = objects(started), read(Kernel(started, known=LATER))

    def crash(left):
        root = tmp_path / f"crash-{left}"
        shutil.copytree(started, root)
        process = child(Path(__file__), "run_and_die", root, left)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"operation {left} was not reached"
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, operations + 1)))
    for root in roots:
        kernel = Kernel(root, known=LATER)
        assert read(kernel) == seen, root.name
        assert before - objects(root) <= told_deleted(kernel), root.name
        assert_pins_hold(kernel)
        stood = objects(root)

        work(kernel)
        assert content(kernel) == expected, root.name
        assert stood - objects(root) <= told_deleted(kernel), root.name
        assert_pins_hold(kernel)
        assert_nothing_is_left_over(kernel)


def assert_pins_hold(kernel):
    for name in kernel.lake().snapshots()["snapshot_id"]:
        assert verify(kernel.store, kernel.lake(snapshot=name).manifest, level="deep").files


def assert_nothing_is_left_over(kernel):
    needed = head_files(kernel.tables).keys() | PinnedFiles(kernel.store).paths()
    data = {path for path in objects(kernel.root) if path.startswith(("silver", "bronze"))}
    assert data == {path for path in needed if path.startswith(("silver", "bronze"))}
    assert not list(kernel.root.rglob("*#*"))
    assert not list((kernel.root / "leases").iterdir())


def test_a_maintenance_that_nobody_kills_ends_well(started, fault_free, tmp_path):
    root = tmp_path / "whole"
    shutil.copytree(started, root)
    assert finished(child(Path(__file__), "run_and_die", root, 10_000)).strip() == "whole"
    assert content(Kernel(root, known=LATER)) == fault_free[0]
