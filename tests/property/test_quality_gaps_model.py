import itertools
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Timeframe
from contracts.spec import Time
from contracts.time import Span
from quality.gaps import runs

MINUTE = Timeframe.parse("1m")
START = datetime(2026, 3, 24, tzinfo=UTC)


def model(indexes, first, last):
    """The same by a loop: one flag a minute, equal neighbours joined."""
    joined = []
    for index in range(first, last):
        flag = index in indexes
        if joined and joined[-1][0] == flag:
            joined[-1][2] = index + 1
        else:
            joined.append([flag, index, index + 1])
    return [[(a, b) for flag, a, b in joined if flag is wanted] for wanted in (True, False)]


def minute(index):
    return START + timedelta(minutes=index)


@given(st.lists(st.integers(-5, 60), max_size=80), st.integers(-5, 20), st.integers(1, 40))
def test_runs_agree_with_the_loop_and_tile_the_span(indexes, first, length):
    asked = Span(minute(first), minute(first + length))
    times = pl.Series([minute(index) for index in indexes], dtype=Time)
    present, holes = runs(times, MINUTE, asked)
    expected = model(set(indexes), first, first + length)
    for found, bounds in zip((present, holes), expected, strict=True):
        assert found == [Span(minute(a), minute(b)) for a, b in bounds]
    tiles = sorted(present + holes)
    assert tiles[0].start == asked.start
    assert tiles[-1].end == asked.end
    assert all(a.end == b.start for a, b in itertools.pairwise(tiles))
