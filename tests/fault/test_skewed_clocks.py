"""Two machines, one an hour ahead and one an hour behind, at work on one lake."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from kernel_support import BTC, Kernel, Row, assert_spans_sound, series

from contracts.errors import ClockRegressionError, CommitConflictError
from contracts.tables import BARS
from contracts.time import SystemClock
from lake.leases import MAINTAIN, lease
from lake.pins import confirm_unpin, is_pinned, pin, request_unpin
from lake.sources import Tables
from lake.vacuum import Rules, sweep
from lake.verify import verify

HOUR = timedelta(hours=1)
ZERO = timedelta(0)
ROUNDS = 6
BOTH_WAYS = pytest.mark.parametrize("skew", [HOUR, -HOUR], ids=["ahead", "behind"])


class SkewedClock(SystemClock):
    """The clock of a machine that is set wrong."""

    def __init__(self, skew):
        self.skew = skew

    def known(self):
        return super().known() + self.skew

    def storage(self):
        return super().storage() + self.skew


def machine(root, skew):
    """Open a lake as a machine does whose clock is wrong."""
    kernel = Kernel(root)
    kernel.clock = SkewedClock(skew)
    kernel.tables = Tables(kernel.store, kernel.clock)
    return kernel


def write(kernel, who, gate):
    """Revise one bar and append others; return the closes that were acknowledged, and refusals."""
    gate.wait()
    done, refused = [], 0
    for number in range(ROUNDS):
        close = 1000.0 * (who + 1) + number
        try:
            told = kernel.publish([Row(0, close), Row(100 * (who + 1) + number, close)])
        except ClockRegressionError:
            refused += 1
            continue
        assert (told.new, told.revised) == (1, 1)
        done.append(close)
    return done, refused


@pytest.mark.parametrize("skew", [timedelta(minutes=2), HOUR], ids=["minutes", "hours"])
def test_what_either_is_told_was_stored_is_stored_once(lake_root, skew):
    kernels = [machine(lake_root, skew), machine(lake_root, -skew)]
    kernels[1].publish([Row(0, 100.0)])
    gate = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        ahead, behind = pool.map(write, kernels, range(2), [gate, gate])
    assert (len(ahead[0]), ahead[1]) == (ROUNDS, 0)
    acknowledged = [*ahead[0], *behind[0]]
    # Some minutes are bridged; knowledge of hours before is refused, and nothing written.
    if skew < HOUR:
        assert behind[1] == 0
    else:
        before = kernels[1].versions()
        with pytest.raises(ClockRegressionError):
            kernels[1].publish([Row(0, 1.0)])
        assert kernels[1].versions() == before

    history = kernels[0].lake().bar_history(BTC, timeframe="1m").collect()
    assert_spans_sound(history)
    of_one = history.filter(history["open_time"] == history["open_time"].min())
    assert sorted(of_one["close"]) == sorted([100.0, *acknowledged])
    assert history.height == 1 + 2 * len(acknowledged)
    bars = kernels[1].rows(BARS)
    assert bars.select(BARS.key).is_unique().all()
    assert sorted(bars["close"][1:]) == sorted(acknowledged)
    manifests = [kernel.snapshot() for kernel in kernels]
    assert manifests[0].snapshot_id == manifests[1].snapshot_id
    for kernel, manifest in zip(kernels, manifests[::-1], strict=True):
        assert verify(kernel.store, manifest, level="deep").files


@BOTH_WAYS
def test_the_hour_of_grace_is_an_hour_of_the_store(any_root, skew):
    """What one removed a moment ago, or has not committed yet, the other's vacuum leaves."""
    for remover, sweeper in ((skew, ZERO), (ZERO, skew)):
        kernel = machine(f"{any_root}-{remover}", remover)
        kernel.publish(series(range(5)))
        kernel.publish(series(range(5, 10)))
        uncommitted = f"{BARS.path}/part-{'a' * 64}.parquet"
        kernel.store.put(uncommitted, b"half of a commit")
        stood = kernel.store.sizes(BARS.path)
        other = machine(f"{any_root}-{remover}", sweeper)
        assert sweep(other.tables, Rules(HOUR), run_id="early").doomed == ()
        assert kernel.store.sizes(BARS.path) == stood
        gone = {each.path for each in sweep(other.tables, Rules(ZERO), run_id="late").doomed}
        assert uncommitted in gone
        assert len(gone) == 2


@BOTH_WAYS
def test_a_lease_holds_up_the_vacuum_of_another_machine(any_root, skew):
    holder, sweeper = machine(any_root, skew), machine(any_root, -skew)
    holder.publish(series(range(5)))
    holder.store.put(f"{BARS.path}/part-{'a' * 64}.parquet", b"half of an import")
    with lease(holder.store, holder.clock, "import"):
        found = sweep(sweeper.tables, Rules(ZERO), run_id="held")
        assert (found.doomed, [each.kind for each in found.held_up]) == ((), ["import"])
    assert len(sweep(sweeper.tables, Rules(ZERO), run_id="free").doomed) == 1


@BOTH_WAYS
def test_nothing_is_pinned_beside_a_vacuum_of_another_machine(any_root, skew):
    pinner, sweeper = machine(any_root, skew), machine(any_root, -skew)
    pinner.publish(series(range(5)))
    manifest = pinner.snapshot()
    asked = request_unpin(pinner.tables, manifest, why="x")
    confirm_unpin(pinner.tables, manifest, token=asked.token)
    with lease(sweeper.store, sweeper.clock, MAINTAIN):
        with pytest.raises(CommitConflictError, match="Maintenance"):
            pin(pinner.tables, manifest)
        assert not is_pinned(pinner.store, manifest.snapshot_id)
    pin(pinner.tables, manifest)
    assert is_pinned(pinner.store, manifest.snapshot_id)
