"""Commits over a bad network: what was stored counts once, whether its answer came or not."""

from __future__ import annotations

import threading
import time

import pytest
from kernel_support import START, Kernel, Row, assert_spans_sound, quarantine_of, series
from s3_proxy import FaultyGateway

from contracts.errors import CommitConflictError, StoreUnavailableError
from contracts.tables import BAR_REVISIONS, BARS, LEDGER, QUARANTINE
from lake.sources import Tables
from lake.store import Store

BEFORE = ("error_before", "reset_before")
AFTER = ("error_after", "reset_after", "timeout")


@pytest.fixture
def gateway(ceph, s3_root, monkeypatch):  # noqa: ARG001 - the proxy comes after the environment
    with FaultyGateway(ceph.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def kernel(gateway, s3_root):
    made = Kernel(s3_root)
    made.publish(series(range(5)))
    made.observe(0, 2)
    made.quarantine(quarantine_of([0]))
    made.step(hours=1)
    made.publish([Row(0, 7.0)])
    made.step(hours=1)
    gateway.clear()
    return made


@pytest.mark.parametrize("fault", [*BEFORE, *AFTER])
def test_a_commit_that_meets_one_fault_is_stored_once(gateway, kernel, fault):
    """The connection ends before the server hears of it, or after it has stored it."""
    heads = kernel.versions()
    gateway.inject(fault, method="PUT", kind="commit", skip=1)  # the first is to the revisions
    done = kernel.publish([Row(2, 9.0), Row(7, 1.0)])
    for write in (
        lambda: kernel.observe(0, 5),
        lambda: kernel.quarantine(quarantine_of([1], known=kernel.clock.known())),
    ):
        gateway.inject(fault, method="PUT", kind="commit")
        write()
    struck = [seen for seen in gateway.log if seen.fault == fault]
    assert len(struck) == 3

    assert (done.new, done.revised) == (1, 1)
    assert kernel.versions() == {
        **heads,
        **{
            name: heads[name] + 1
            for name in (BARS.name, LEDGER.name, QUARANTINE.name, BAR_REVISIONS.name)
        },
    }
    again = Kernel(kernel.root, known=kernel.clock.known())
    assert again.rows(BARS).height == 6
    assert again.rows(BAR_REVISIONS).height == 2
    assert again.rows(QUARANTINE).height == 2
    assert_spans_sound(again.lake().bar_history("*", timeframe="1m").collect())


@pytest.mark.parametrize("fault", ["reset_before", "error_after", "reset_after"])
def test_a_table_whose_creation_meets_a_fault_is_created_once(gateway, s3_root, fault):
    kernel = Kernel(s3_root)
    gateway.inject(fault, method="PUT", kind="commit")
    kernel.publish(series(range(3)))
    assert kernel.tables[BARS.name].head().version == 1
    assert kernel.rows(BARS).height == 3


def lose_upstream(gateway, seconds):
    """Let nobody answer for a while from the first fault on."""

    def lose():
        while not any(seen.fault for seen in list(gateway.log)):
            time.sleep(0.001)
        upstream, gateway.upstream = gateway.upstream, "http://127.0.0.1:9"
        time.sleep(seconds)
        gateway.upstream = upstream

    thread = threading.Thread(target=lose)
    thread.start()
    return thread


def test_an_outcome_is_waited_for_while_the_gateway_is_away(gateway, kernel):
    """The commit is stored, its answer lost, and nobody answers for seconds afterwards."""
    gateway.inject("reset_after", method="PUT", kind="commit")
    away = lose_upstream(gateway, 12)
    began = time.monotonic()
    done = kernel.publish([Row(7, 1.0)])
    assert time.monotonic() - began > 10
    away.join()
    assert (done.new, kernel.rows(BARS).height) == (1, 6)


def test_an_outcome_that_stays_unknown_is_told_and_a_rerun_doubles_nothing(
    gateway, kernel, monkeypatch
):
    monkeypatch.setattr("lake.outcome._WAIT_SECONDS", 0.5)
    kernel.store = Store(kernel.root, options={"retry_timeout": "1s"})
    kernel.tables = Tables(kernel.store, kernel.clock)
    gateway.inject("reset_after", method="PUT", kind="commit")
    away = lose_upstream(gateway, 4)
    with pytest.raises(StoreUnavailableError, match="not known") as error:
        kernel.publish([Row(7, 1.0)])
    assert error.value.outcome == "unknown"
    away.join()
    again = Kernel(kernel.root, known=kernel.clock.known())
    assert again.rows(BARS).height == 6
    assert again.publish([Row(7, 1.0)]).new == 0
    assert again.rows(BARS).height == 6


def test_a_store_that_never_takes_a_commit_is_an_error_and_shows_nothing(gateway, kernel):
    gateway.inject("reset_before", method="PUT", kind="commit", times=100_000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError) as error:
        kernel.publish([Row(7, 1.0)])
    assert error.value.outcome == "not stored"
    assert time.monotonic() - began < 30
    gateway.clear()
    assert kernel.rows(BARS).height == 5
    assert kernel.publish([Row(7, 1.0)]).new == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_lake_written_over_a_bad_network_holds_what_was_acknowledged(gateway, kernel, seed):
    """One request in twelve fails in some way; errors are named, and a rerun mends them."""
    gateway.hang = 0.1
    gateway.plan(seed, 1 / 12)
    expected = {row.minute: row.close for row in [*series(range(5)), Row(0, 7.0)]}
    for number in range(8):
        rows = [Row(number, 500.0 + number), Row(100 + number, 1.0)]
        kernel.step(minutes=1)
        for _ in range(30):
            try:
                kernel.publish(rows)
                kernel.observe(number, number + 1)
            except (StoreUnavailableError, CommitConflictError):
                continue
            expected |= {row.minute: row.close for row in rows}
            break
        else:
            pytest.fail(f"seed {seed}: 30 tries of one write failed")
    struck = sum(seen.fault is not None for seen in gateway.log)
    gateway.clear()
    assert struck > 5
    bars = Kernel(kernel.root, known=kernel.clock.known()).rows(BARS)
    minutes = (bars["open_time"] - START).dt.total_minutes()
    assert dict(zip(minutes, bars["close"], strict=True)) == expected
    assert_spans_sound(kernel.lake().bar_history("*", timeframe="1m").collect())
    assert kernel.snapshot().snapshot_id
