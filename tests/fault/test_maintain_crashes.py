"""kill -9 before every storage operation of maintenance: nothing that is read changes, nothing
goes without its row in ops.deletions, and the next run ends where nobody died."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from deltalake import DeltaTable
from kernel_support import (
    ETH,
    KNOWN,
    Kernel,
    Row,
    content,
    copy_lake,
    response_of,
    series,
)
from processes import child, finished, killed
from test_crash_points import NEVER, Countdown

from contracts.tables import BARS, DELETIONS
from flows.maintain import MaintainRequest, maintain
from flows.work import Progress, Work
from lake.reach import PinnedFiles, head_files
from lake.settings import Settings
from lake.store import Store
from lake.verify import verify

LATER = KNOWN + timedelta(days=365)
ZERO = timedelta(0)
HERE = Path(__file__)


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
    kernel.store.put(f"probes/{'a' * 32}", b"half")
    if kernel.store.is_local:
        staged = kernel.store.path / BARS.path / f"part-{'a' * 64}.parquet#0badcafe"
        staged.write_bytes(b"half")


def work(kernel):
    settings = Settings(fsync=False, bronze_days=20)
    run = Work(kernel.tables, kernel.clock, f"run-{os.getpid()}", settings, Progress())
    request = MaintainRequest(apply=True, grace=ZERO, lease_grace=ZERO)
    return asyncio.run(maintain(run, request))


class MaintenanceCountdown(Countdown):
    """Counts what only a maintenance does as well."""

    def install(self, patch):
        super().install(patch)
        patch(DeltaTable, "create_checkpoint", self._wrapped(DeltaTable.create_checkpoint))
        # A deletion looks once more before it deletes, and in a folder moves aside before that.
        patch(obstore, "delete", self._wrapped(obstore.delete))
        for name in ("rename", "unlink"):
            patch(Path, name, self._wrapped(getattr(Path, name)))


def run_and_die(root, left):
    """Run in the child: maintain and die before operation ``left``, if there is one."""
    kernel, countdown = Kernel(root, known=LATER), MaintenanceCountdown(int(left))
    countdown.install(setattr)
    parts = {each.part for each in work(kernel).actions}
    assert {"compact", "retention", "vacuum", "leftovers"} <= parts
    sys.stdout.write(str(countdown.seen))


def objects(store):
    """Return data files, and what was to become one."""
    found = store.sizes("").keys() | store.leftovers().keys()
    return {path for path in found if path.rpartition("/")[2].startswith("part-")}


def told_deleted(kernel):
    view = kernel.tables[DELETIONS.name].head()
    return set(kernel.rows(DELETIONS)["path"]) if view.version >= 0 else set()


def read(kernel):
    """Return what readers see, without the answers, of which some expire."""
    return {name: rows for name, rows in content(kernel).items() if name != "responses"}


def test_maintenance_killed_before_any_operation_and_run_again_nothing_differs(lake_root, every):
    start, whole = f"{lake_root}/start", f"{lake_root}/whole"
    start_lake(start)
    copy_lake(start, whole)
    operations = int(finished(child(HERE, "run_and_die", whole, NEVER)))
    assert 20 <= operations <= 60
    expected = content(Kernel(whole, known=LATER))
    before, seen = objects(Store(start)), read(Kernel(start, known=LATER))

    def crash(left):
        root = f"{lake_root}/crash-{left}"
        copy_lake(start, root)
        killed(child(HERE, "run_and_die", root, left))
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, operations + 1, every)))
    for root in roots:
        kernel = Kernel(root, known=LATER)
        assert read(kernel) == seen, root
        assert before - objects(kernel.store) <= told_deleted(kernel), root
        assert_pins_hold(kernel)
        stood = objects(kernel.store)

        work(kernel)
        assert content(kernel) == expected, root
        assert stood - objects(kernel.store) <= told_deleted(kernel), root
        assert_pins_hold(kernel)
        assert_nothing_is_left_over(kernel)


def assert_pins_hold(kernel):
    for name in kernel.lake().snapshots()["snapshot_id"]:
        assert verify(kernel.store, kernel.lake(snapshot=name).manifest, level="deep").files


def assert_nothing_is_left_over(kernel):
    needed = head_files(kernel.tables).keys() | PinnedFiles(kernel.store).paths()
    data = {path for path in objects(kernel.store) if path.startswith(("silver", "bronze"))}
    assert data == {path for path in needed if path.startswith(("silver", "bronze"))}
    assert not kernel.store.leftovers()
    assert not kernel.store.sizes("leases")
    assert not kernel.store.sizes("probes")
