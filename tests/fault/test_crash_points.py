"""kill -9 before every storage operation: whoever runs again ends where nobody died."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from deltalake import DeltaTable
from kernel_support import (
    BTC,
    KNOWN,
    Kernel,
    Row,
    assert_spans_sound,
    content,
    copy_lake,
    quarantine_of,
    response_of,
    series,
)
from processes import child, finished, killed

from lake.store import Store
from lake.verify import verify

LATER = KNOWN + timedelta(hours=1)
NEXT_YEAR = 407_520
NEVER = -1
HERE = Path(__file__)


def start_lake(root):
    """Make a lake that has seen one run, so that tables both stand and do not."""
    kernel = Kernel(root)
    kernel.land(response_of(b"[1]"))
    kernel.publish(series(range(10)))
    kernel.observe(0, 10)
    return kernel


def work(kernel):
    """Walk the path of the data once, in its order; return the snapshot's id."""
    kernel.land(response_of(b"[1]", at=LATER), response_of(b"[2]", at=LATER, limit=2))
    kernel.quarantine(quarantine_of([50], known=LATER))
    kernel.publish([Row(3, 200.0), Row(4, 201.0), Row(20, 1.0), Row(NEXT_YEAR, 2.0)])
    kernel.observe(3, 21)
    return kernel.snapshot().snapshot_id


class Countdown:
    """Counts storage operations and dies, as kill -9 does, before the last of them.

    A death in a put leaves half of the object where the store stages it.
    """

    def __init__(self, left):
        self.left = left
        self.seen = 0
        self.lock = threading.Lock()

    def tick(self, *arguments):
        with self.lock:
            self.seen += 1
            if self.seen != self.left:
                return
            if arguments and isinstance(arguments[0], Store) and arguments[0].is_local:
                store, path, data = arguments
                staged = store.path / f"{path}#1"
                staged.parent.mkdir(parents=True, exist_ok=True)
                staged.write_bytes(bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self, patch):
        for name in ("put", "create"):
            original = getattr(Store, name)
            patch(Store, name, lambda *a, _original=original: self.tick(*a) or _original(*a))
        patch(Store, "delete", self._wrapped(Store.delete))
        patch(DeltaTable, "create", self._wrapped(DeltaTable.create))
        write = self._wrapped(DeltaTable.create_write_transaction)
        patch(DeltaTable, "create_write_transaction", write)

    def _wrapped(self, original):
        def call(*arguments, **options):
            self.tick()
            return original(*arguments, **options)

        return call


def run_and_die(root, left):
    """Run in the child: do the work and die before operation ``left``, if there is one."""
    kernel, countdown = Kernel(root, known=LATER), Countdown(int(left))
    countdown.install(setattr)
    sys.stdout.write(f"{work(kernel)} {countdown.seen}")


def without_knowledge(told):
    """Return values only: a run at a later hour dates its knowledge later."""
    return {
        "bars": [row[:-1] for row in told["bars"]],
        "versions": [row[:-2] for row in told["versions"]],
        "ledger": [row[:6] for row in told["ledger"]],
        "quarantine": told["quarantine"],
        "responses": told["responses"],
    }


def test_killed_before_any_operation_and_run_again_nothing_differs(lake_root, every):
    start, whole = f"{lake_root}/start", f"{lake_root}/whole"
    start_lake(start)
    copy_lake(start, whole)
    snapshot_id, operations = finished(child(HERE, "run_and_die", whole, NEVER)).split()
    assert 15 <= int(operations) <= 40
    expected = content(Kernel(whole, known=LATER))

    def crash(left):
        root = f"{lake_root}/crash-{left}"
        copy_lake(start, root)
        killed(child(HERE, "run_and_die", root, left))
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, int(operations) + 1, every)))
    for number, root in enumerate(roots):
        later = f"{root}-later"
        if number % 2:
            copy_lake(root, later)
        assert_readable_between(Kernel(root, known=LATER))

        rerun = Kernel(root, known=LATER)
        assert work(rerun) == snapshot_id, root
        assert content(rerun) == expected, root
        assert work(rerun) == snapshot_id

        if number % 2:
            late = Kernel(later, known=LATER + timedelta(minutes=10))
            work(late)
            assert without_knowledge(content(late)) == without_knowledge(expected), root


def assert_readable_between(kernel):
    """Check what a reader meets after the crash and before the second run."""
    lk = kernel.lake()
    bars = lk.bars(BTC, timeframe="1m").collect()
    assert bars.select("open_time").is_unique().all()
    assert bars.height in (10, 12)
    assert_spans_sound(lk.bar_history(BTC, timeframe="1m").collect())
    for name in lk.snapshots()["snapshot_id"]:
        assert verify(kernel.store, kernel.lake(snapshot=name).manifest).files
    before = lk.bars(BTC, timeframe="1m", known_at=KNOWN).collect()
    assert before["close"].to_list() == [row.close for row in series(range(10))]
