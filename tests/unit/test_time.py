import itertools
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from contracts.errors import InvalidSpanError, InvalidTimeError
from contracts.time import (
    Span,
    SteppedClock,
    SystemClock,
    from_micros,
    from_millis,
    iso,
    parse_time,
    to_micros,
    to_millis,
)

T0 = datetime(2026, 3, 24, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-24", T0),
        ("  2026-03-24T00:00Z ", T0),
        ("2026-03-24T02:00+02:00", T0),
        ("2026-03-24T00:00:00.000001", T0 + timedelta(microseconds=1)),
        (date(2026, 3, 24), T0),
        (T0.astimezone(timezone(-5 * HOUR)), T0),
    ],
)
def test_parse_time_reads_utc(value, expected):
    found = parse_time(value)
    assert found == expected
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2026, 3, 24), "naive"),  # noqa: DTZ001
        ("2026-03-24T00:00:00.0000001Z", "finer than a microsecond"),
        ("yesterday", "not a time"),
        ("", "not a time"),
        (1_774_310_400, "int"),
        ("0001-01-01T00:00+05:00", "outside the calendar"),
    ],
)
def test_parse_time_refuses(value, message):
    with pytest.raises(InvalidTimeError, match=message) as caught:
        parse_time(value, name="known_at")
    assert caught.value.name == "known_at"
    assert caught.value.remedy


def test_integers_round_trip_and_millis_round_down():
    moment = T0 + timedelta(microseconds=1_999)
    assert from_micros(to_micros(moment)) == moment
    assert from_millis(to_millis(moment)) == T0 + timedelta(milliseconds=1)
    assert to_micros(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)) == -1_000_000
    assert parse_time(iso(moment)) == moment


def test_span_is_half_open_and_in_utc():
    span = Span(T0.astimezone(timezone(HOUR)), T0 + HOUR)
    assert str(span) == "[2026-03-24T00:00:00Z, 2026-03-24T01:00:00Z)"
    assert span.contains(T0)
    assert not span.contains(T0 + HOUR)
    assert span.duration == HOUR


@pytest.mark.parametrize("end", [T0, T0 - HOUR])
def test_a_span_is_not_empty(end):
    with pytest.raises(InvalidSpanError, match="is not before"):
        Span(T0, end)
    with pytest.raises(InvalidTimeError, match="naive"):
        Span(T0.replace(tzinfo=None), T0 + HOUR)


def test_spans_that_touch_share_nothing():
    first, second = Span(T0, T0 + HOUR), Span(T0 + HOUR, T0 + 2 * HOUR)
    assert first.intersection(second) is None
    assert Span(T0, T0 + 2 * HOUR).intersection(second) == second


def test_split_tiles_the_span_with_a_short_last_piece():
    pieces = list(Span.parse(T0, T0 + 2.5 * HOUR).split(HOUR))
    assert [piece.duration for piece in pieces] == [HOUR, HOUR, HOUR / 2]
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))


def test_a_stepped_clock_moves_by_hand_and_keeps_real_storage_time():
    clock, system = SteppedClock(T0), SystemClock()
    clock.step(HOUR)
    assert clock.known() == T0 + HOUR
    clock.set(T0 - HOUR)
    assert clock.known() == T0 - HOUR
    before = system.storage()
    assert before <= clock.storage() <= system.known()
    with pytest.raises(InvalidTimeError):
        clock.set(datetime(2026, 3, 24))  # noqa: DTZ001
