from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from contracts.errors import ContractError
from contracts.names import Timeframe
from contracts.spec import Time
from contracts.time import Span, parse_time
from quality.gaps import runs

HOUR = Timeframe.parse("1h")
DAY = Span.parse("2026-03-24", "2026-03-25")


def hours(*numbers):
    start = datetime(2026, 3, 24, tzinfo=UTC)
    return pl.Series([start + timedelta(hours=n) for n in numbers], dtype=Time)


def as_hours(spans):
    return [
        tuple(int((edge - DAY.start) / timedelta(hours=1)) for edge in (span.start, span.end))
        for span in spans
    ]


@pytest.mark.parametrize(
    ("numbers", "present", "holes"),
    [
        ([], [], [(0, 24)]),
        (range(24), [(0, 24)], []),
        ([0], [(0, 1)], [(1, 24)]),
        ([23], [(23, 24)], [(0, 23)]),
        ([1, 2, 5, 5, 4], [(1, 3), (4, 6)], [(0, 1), (3, 4), (6, 24)]),
        ([-1, 0, 24, 25], [(0, 1)], [(1, 24)]),
    ],
)
def test_runs_and_holes_are_maximal(numbers, present, holes):
    found, missing = runs(hours(*numbers), HOUR, DAY)
    assert (as_hours(found), as_hours(missing)) == (present, holes)


@pytest.mark.parametrize(
    ("times", "asked", "message"),
    [
        (hours(0), Span(DAY.start, DAY.end - timedelta(minutes=1)), "does not lie on the grid"),
        (hours(0.5), DAY, "off the grid"),
        (pl.Series([None], dtype=Time), DAY, "1 nulls"),
        (hours(0).dt.cast_time_unit("ms"), DAY, "ms"),
        (hours(0).dt.replace_time_zone(None), DAY, "Datetime"),
    ],
)
def test_what_cannot_tile_is_refused(times, asked, message):
    with pytest.raises(ContractError, match=message):
        runs(times, HOUR, asked)


def test_the_holes_of_a_recorded_year_are_the_outages(recorded):
    tape = pl.read_ipc(recorded / "bars/binance_spot_long/BTC_USDT-1h.feather")
    opens = tape["date"].dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    asked = Span(opens.min(), opens.max() + HOUR.duration)
    present, holes = runs(opens, HOUR, asked)
    # 28 outages of 128 hours, as the provenance of the recording counts them.
    assert (len(present), len(holes)) == (29, 28)
    assert sum((hole.duration for hole in holes), timedelta()) == timedelta(hours=128)
    longest = max(holes, key=lambda hole: hole.duration)
    assert longest.start == parse_time("2018-02-08T01:00")
    assert longest.duration == timedelta(hours=33)
