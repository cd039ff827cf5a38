from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Timeframe
from contracts.time import (
    Span,
    from_micros,
    from_millis,
    iso,
    parse_time,
    to_micros,
    to_millis,
)

offsets = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(datetime(1900, 1, 2), datetime(2199, 12, 30), timezones=offsets)  # noqa: DTZ001
timeframes = st.sampled_from(Timeframe.all())


@st.composite
def spans(draw):
    start, end = sorted(draw(st.tuples(moments, moments).filter(lambda pair: pair[0] != pair[1])))
    return Span(start, end)


@given(moments)
def test_a_moment_survives_every_form(moment):
    assert parse_time(moment) == moment
    assert parse_time(moment).tzinfo is UTC
    assert parse_time(iso(moment)) == moment
    assert parse_time(moment.isoformat()) == moment
    assert from_micros(to_micros(moment)) == moment
    assert timedelta(0) <= moment - from_millis(to_millis(moment)) < timedelta(milliseconds=1)


@given(moments, timeframes)
def test_the_grid_brackets_a_moment(moment, timeframe):
    floor, ceil = timeframe.floor(moment), timeframe.ceil(moment)
    assert floor <= moment <= ceil
    assert ceil - floor in (timedelta(0), timeframe.duration)
    assert to_micros(floor) % timeframe.micros == 0


@given(spans(), timeframes)
def test_bars_of_a_span_open_inside_it(span, timeframe):
    bars = timeframe.bars_of(span)
    if bars is None:
        assert timeframe.ceil(span.start) >= span.end
    else:
        assert span.contains(bars.start)
        assert bars.start - timeframe.duration < span.start
        assert span.contains(bars.end - timeframe.duration)
        assert bars.end >= span.end


@given(spans(), spans(), moments)
def test_an_intersection_holds_what_both_hold(first, second, moment):
    shared = first.intersection(second)
    assert shared == second.intersection(first)
    both = first.contains(moment) and second.contains(moment)
    assert both == (shared is not None and shared.contains(moment))
