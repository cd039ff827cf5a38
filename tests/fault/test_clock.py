"""A clock that was set back: a little is bridged, a lot is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kernel_support import BTC, KNOWN, US, Kernel, Row, assert_spans_sound, series

from contracts.errors import ClockRegressionError
from contracts.tables import BARS


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.publish(series(range(5)))
    made.observe(0, 5)
    return made


@pytest.mark.parametrize("back", [timedelta(minutes=5, microseconds=1), timedelta(days=400)])
def test_more_than_five_minutes_back_writes_nothing(kernel, back):
    files = sorted(kernel.root.rglob("*"))
    kernel.clock.set(KNOWN - back)
    for work in (
        lambda: kernel.publish([Row(1, 999.0), Row(9, 1.0)]),
        lambda: kernel.observe(0, 9),
    ):
        with pytest.raises(ClockRegressionError, match="2026-04-01T00:00:00Z") as error:
            work()
        assert error.value.newest == KNOWN
        assert "nothing was written" in str(error.value)
    assert sorted(kernel.root.rglob("*")) == files


def test_up_to_five_minutes_back_moves_on_by_a_microsecond(kernel):
    kernel.clock.set(KNOWN - timedelta(minutes=4, seconds=59))
    for number in range(3):
        done = kernel.publish([Row(1, 900.0 + number)])
        assert done.known_from == KNOWN + (number + 1) * US
    history = kernel.lake().bar_history(BTC, timeframe="1m").collect()
    assert_spans_sound(history)
    assert history.height == 8


def test_a_clock_that_stands_still_keeps_versions_apart(kernel):
    for number in range(4):
        kernel.publish([Row(1, 900.0 + number)])
    lk = kernel.lake()
    seen = [
        lk.bars(BTC, timeframe="1m", known_at=KNOWN + step * US).collect()["close"][1]
        for step in range(5)
    ]
    assert seen == [100.51, 900.0, 901.0, 902.0, 903.0]


def test_the_tolerance_counts_from_the_newest_microsecond(kernel):
    """Statistics are rounded up to a millisecond, so the last one before five minutes counts."""
    kernel.clock.set(KNOWN + timedelta(microseconds=1500))
    kernel.publish([Row(9, 1.0)])
    kernel.clock.set(KNOWN - timedelta(minutes=5) + timedelta(milliseconds=2))
    assert kernel.publish([Row(10, 1.0)]).new == 1
    kernel.clock.set(KNOWN - timedelta(minutes=5) + timedelta(milliseconds=1))
    with pytest.raises(ClockRegressionError):
        kernel.publish([Row(11, 1.0)])


def test_storage_times_stay_real_under_a_replayed_clock(lake_root):
    """A tombstone of a replayed year would be vacuumed at once."""
    import json

    kernel = Kernel(lake_root, known=KNOWN.replace(year=2022))
    before = kernel.clock.storage()
    kernel.publish(series(range(3)))
    kernel.publish(series(range(3, 6)))
    told = [json.loads(line) for line in kernel.log_of(BARS, 2).read_text().splitlines()]
    removed = next(action["remove"] for action in told if "remove" in action)
    assert removed["deletionTimestamp"] >= before.timestamp() * 1000 - 1
