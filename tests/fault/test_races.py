"""Two processes at once: nothing is lost, nothing is doubled, every cut is consistent."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from kernel_support import (
    BAR_KEY,
    BTC,
    Kernel,
    Row,
    assert_spans_sound,
    quarantine_of,
    series,
)
from processes import child, finished

from contracts.errors import CommitConflictError, StoreUnavailableError, UnsafeStoreError
from contracts.tables import BAR_REVISIONS, BARS, LEDGER, QUARANTINE, TABLES
from lake.tables import Table

ROUNDS = 8


def wait_for(path):
    deadline = time.monotonic() + 30
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


def both(call, root, gate, *, arguments=("a", "b")):
    """Run two children that start their work at the same moment; return what they said."""
    processes = [child(Path(__file__), call, root, gate, each) for each in arguments]
    for each in arguments:
        wait_for(f"{gate}-{each}")
    gate.touch()
    return [json.loads(finished(process)) for process in processes]


def entered(root, gate, who):
    kernel = Kernel(root)
    Path(f"{gate}-{who}").touch()
    wait_for(gate)
    return kernel


def publish_same(root, gate, who):
    kernel = entered(root, gate, who)
    news = 0
    for first in range(0, ROUNDS * 5, 5):
        done = kernel.publish(series(range(first, first + 5)))
        news += done.new
        kernel.observe(0, first + 5)
    sys.stdout.write(json.dumps(news))


def revise_one(root, gate, who):
    kernel = entered(root, gate, who)
    written = []
    for number in range(ROUNDS):
        close = 1000.0 + number + (0.5 if who == "b" else 0)
        done = kernel.publish([Row(0, close)])
        written += [close] * done.revised
    sys.stdout.write(json.dumps(written))


def create_all(root, gate, who):
    kernel = entered(root, gate, who)
    for name in TABLES:
        kernel.tables[name].create()
    kernel.quarantine(quarantine_of([1, 2]))
    sys.stdout.write(json.dumps(sorted(kernel.versions())))


def keep_writing(root, gate, who):
    """Revise bar 0 again and again, add a bar each time, and claim it in the ledger."""
    kernel = entered(root, gate, who)
    for number in range(1, 25):
        kernel.step(minutes=1)
        kernel.publish([Row(0, 1000.0 + number), Row(number, 1.0)])
        kernel.observe(0, number + 1)
    sys.stdout.write(json.dumps(number))


def test_two_processes_publish_one_span(lake_root, gate):
    """Each row is stored once, whoever was first, and the lake's tables are made by both."""
    Kernel(lake_root)
    news = both("publish_same", lake_root, gate)
    kernel = Kernel(lake_root)
    assert sum(news) == ROUNDS * 5
    bars = kernel.rows(BARS)
    assert bars.height == ROUNDS * 5
    assert bars.select(BAR_KEY).is_unique().all()
    assert kernel.tables[BAR_REVISIONS.name].head().files == ()
    states = kernel.lake().ledger()
    assert states.select("state").to_series().to_list() == ["present"]
    assert kernel.rows(LEDGER).select(LEDGER.key).is_unique().all()


def test_two_processes_revise_one_bar(lake_root, gate):
    """Every version that a writer believes it wrote is in the history, once, in order."""
    Kernel(lake_root).publish([Row(0, 1.0)])
    written = both("revise_one", lake_root, gate)
    history = Kernel(lake_root).lake().bar_history(BTC, timeframe="1m").collect()
    assert sorted(history["close"]) == sorted([1.0, *written[0], *written[1]])
    assert_spans_sound(history)
    assert all(written)


def test_two_processes_create_one_table(lake_root, gate):
    Kernel(lake_root)
    for seen in both("create_all", lake_root, gate):
        assert len(seen) == 6
    kernel = Kernel(lake_root)
    assert kernel.rows(QUARANTINE).height == 2
    assert kernel.tables[BARS.name].head().version == 0


def test_a_table_is_created_once_however_many_writers_race(tmp_path):
    """Four threads, each with a kernel of its own, as four processes would have."""
    for number in range(6):
        kernels = [Kernel(tmp_path / str(number)) for _ in range(4)]
        gate = threading.Barrier(len(kernels))

        def create(kernel, gate=gate):
            gate.wait()
            kernel.tables[BARS.name].create()

        with ThreadPoolExecutor(len(kernels)) as pool:
            list(pool.map(create, kernels))
        assert {kernel.tables[BARS.name].head().version for kernel in kernels} == {0}


def test_snapshots_under_a_writer_are_consistent_cuts(lake_root, gate):
    kernel = Kernel(lake_root)
    kernel.publish([Row(0, 1000.0)])
    kernel.observe(0, 1)
    process = child(Path(__file__), "keep_writing", lake_root, gate, "w")
    wait_for(f"{gate}-w")
    gate.touch()
    ids = []
    while process.poll() is None:
        ids.append(kernel.snapshot().snapshot_id)
    finished(process)
    ids = list(dict.fromkeys(ids))
    assert len(ids) >= 3, "the writer was done before a snapshot could race it"
    for snapshot_id in ids:
        assert_consistent(kernel.lake(snapshot=snapshot_id))


def test_a_cut_is_consistent_though_a_writer_runs_between_any_two_heads(lake_root, monkeypatch):
    kernel, writer = Kernel(lake_root), Kernel(lake_root)
    kernel.publish([Row(0, 1000.0)])
    kernel.observe(0, 1)
    numbers = itertools.count(1)

    def overtaken(resolve):
        def resolve_and_be_overtaken(table):
            found = resolve(table)
            if table.store is not writer.store:
                number = next(numbers)
                writer.publish([Row(0, 1000.0 + number), Row(number, 1.0)])
                writer.observe(0, number + 1)
            return found

        return resolve_and_be_overtaken

    monkeypatch.setattr(Table, "head", overtaken(Table.head))
    monkeypatch.setattr(Table, "inventory", overtaken(Table.inventory))
    snapshot_id = kernel.snapshot().snapshot_id
    heads = kernel.lake()
    history = heads.bar_history(BTC, timeframe="1m", end="2026-03-24T00:01").collect()
    monkeypatch.undo()
    assert next(numbers) >= len(TABLES)
    assert_consistent(kernel.lake(snapshot=snapshot_id))
    assert_no_version_lost(history)


def assert_consistent(lk):
    """Check that what the ledger claims is in the bars, and what they replaced in the revisions."""
    bars = lk.bars(BTC, timeframe="1m").collect()
    claimed = lk.ledger(BTC, timeframe="1m").filter(state="present")
    minutes = (claimed["span_end"] - claimed["span_start"]).sum().total_seconds() / 60
    assert bars.height >= minutes >= 1
    assert_no_version_lost(lk.bar_history(BTC, timeframe="1m", end="2026-03-24T00:01").collect())


def assert_no_version_lost(history):
    closes = history["close"].to_list()
    assert closes == [1000.0 + number for number in range(len(closes))]
    assert_spans_sound(history)


@pytest.mark.parametrize("kind", [CommitFailedError, DeltaError, OSError])
def test_a_commit_whose_acknowledgement_is_lost_is_not_doubled(lake_root, monkeypatch, kind):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(5)))
    kernel.step(hours=1)
    lose_acknowledgements(monkeypatch, kind)
    version = kernel.tables[BARS.name].head().version

    done = kernel.publish([Row(2, 9.0), Row(7, 1.0)])
    assert kernel.observe(0, 5) == 1
    assert kernel.quarantine(quarantine_of([1])).rows == 1

    assert (done.new, done.revised, done.version) == (1, 1, version + 1)
    assert kernel.rows(BARS).height == 6
    assert kernel.rows(BAR_REVISIONS).height == 1
    assert kernel.rows(LEDGER).height == 1
    assert kernel.rows(QUARANTINE).height == 1


def lose_acknowledgements(monkeypatch, kind):
    original = DeltaTable.create_write_transaction

    def stored_and_lost(*arguments, **options):
        original(*arguments, **options)
        raise kind("the connection was closed")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", stored_and_lost)


def test_a_commit_that_is_acknowledged_and_not_in_the_log_is_told(lake_root, monkeypatch):
    """So does a store that loses commits behave when another writer's takes the place."""
    kernel = Kernel(lake_root)
    kernel.publish(series(range(5)))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", lambda *_, **__: None)
    with pytest.raises(UnsafeStoreError, match="acknowledged and is not in the log"):
        kernel.publish([Row(7, 1.0)])


def test_a_commit_that_was_refused_for_another_reason_is_no_race(lake_root, monkeypatch):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(5)))

    def refused(*_, **__):
        raise DeltaError("No space left on device")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refused)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        kernel.publish([Row(7, 1.0)])


def test_a_race_that_is_lost_for_ever_ends_in_a_conflict(lake_root, monkeypatch):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(5)))

    def lost(*_, **__):
        raise CommitFailedError("Concurrent transaction failed")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)
    monkeypatch.setattr("lake.tables._ATTEMPTS", 3)
    with pytest.raises(CommitConflictError) as error:
        kernel.publish([Row(7, 1.0)])
    assert error.value.retryable
    assert error.value.remedy


def test_a_stale_handle_compares_again(lake_root):
    """Two writers in one process, each with a handle that the other's commits leave behind."""
    one, other = Kernel(lake_root), Kernel(lake_root)
    one.publish(series(range(3)))
    other.publish(series(range(3)))
    for number in range(6):
        writer = (one, other)[number % 2]
        writer.step(minutes=1)
        assert writer.publish([Row(0, 500.0 + number)]).revised == 1
    assert_spans_sound(one.lake().bar_history(BTC, timeframe="1m").collect())
    assert other.rows(BAR_REVISIONS).height == 6
