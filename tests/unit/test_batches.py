"""Which spans are asked, and how they are cut into pages and batches."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.names import InstrumentId, Timeframe
from contracts.tables import State
from contracts.time import Span, parse_time
from flows.batches import BarStream, plan_batches, spans_to_ask
from lake.ledger import Observation, fold, observations_frame, tiling

MINUTE = Timeframe.parse("1m")
START = parse_time("2026-03-01")
NOW = parse_time("2026-03-05")
STREAM = BarStream(InstrumentId.parse("BTC-USDT-SPOT.BINANCE"), "BTCUSDT", MINUTE)
TWO_DAYS = timedelta(hours=48)


def span(start, end):
    return Span(START + timedelta(minutes=start), START + timedelta(minutes=end))


def tiles(*observed, whole):
    frame = observations_frame(
        [Observation(each, state) for each, state in observed],
        instrument_id=str(STREAM.instrument_id),
        venue="binance",
        timeframe="1m",
        source="rest",
        known_from=START,
    )
    return tiling(fold(frame), [STREAM.key], whole)


def test_what_is_unfetched_or_pending_is_asked_and_what_is_known_is_not():
    told = tiles(
        (span(0, 10), State.PRESENT),
        (span(20, 30), State.MISSING),
        (span(30, 40), State.UNLISTED),
        (span(40, 50), State.QUARANTINED),
        (span(50, 60), State.PENDING),
        whole=span(0, 70),
    )
    asked = spans_to_ask(told, MINUTE, now=NOW, recheck_missing=TWO_DAYS)
    assert asked == [span(10, 20), span(50, 70)]
    everything = spans_to_ask(told, MINUTE, now=NOW, recheck_missing=TWO_DAYS, everything=True)
    assert everything == [span(0, 70)]


def test_a_young_missing_span_is_asked_again_from_the_grid_on():
    told = tiles((span(0, 60), State.MISSING), whole=span(0, 60))
    now = START + TWO_DAYS + timedelta(minutes=30, seconds=20)
    assert spans_to_ask(told, MINUTE, now=now, recheck_missing=TWO_DAYS) == [span(30, 60)]
    assert spans_to_ask(told, MINUTE, now=NOW, recheck_missing=TWO_DAYS) == []


@given(
    spans=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000)), min_size=1, max_size=5),
    page_bars=st.integers(1, 1000),
    batch_pages=st.integers(1, 70),
)
def test_batches_hold_every_page_once_and_no_more_than_their_share(spans, page_bars, batch_pages):
    hour = BarStream(STREAM.instrument_id, "BTCUSDT", Timeframe.parse("1h"))
    wanted = [
        (stream, [span(start * 60, (start + length) * 60) for start, length in spans[:3]])
        for stream in (STREAM, hour)
    ]
    whole = [
        (stream, page)
        for stream, each in wanted
        for one in each
        for page in one.split(stream.timeframe.duration * page_bars)
    ]
    if len(whole) > 3000:
        return
    batches = list(plan_batches(wanted, page_bars=page_bars, batch_pages=batch_pages))
    found = [(ask.stream, page) for batch in batches for ask in batch.asks for page in ask.pages]
    assert found == whole
    for batch in batches:
        assert sum(len(ask.pages) for ask in batch.asks) <= batch_pages
        assert len({ask.stream.timeframe for ask in batch.asks}) == 1
        for ask in batch.asks:
            assert (ask.span.start, ask.span.end) == (ask.pages[0].start, ask.pages[-1].end)


def test_nothing_wanted_is_no_batch():
    assert list(plan_batches([], page_bars=1000, batch_pages=64)) == []


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_own_rank(state):
    assert [each.rank for each in State].count(state.rank) == 1
