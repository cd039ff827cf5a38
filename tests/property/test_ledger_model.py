"""The ledger against a dictionary that holds one state per minute."""

from __future__ import annotations

import itertools
from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import BTC, ETH, GENERATED, KNOWN, MINUTE, START, Kernel

from contracts.spec import Time
from contracts.tables import LEDGER, State
from contracts.time import Span
from lake.ledger import (
    STREAM,
    Observation,
    fold,
    observations_frame,
    read_observations,
    record,
    runs,
    tiling,
)

MINUTES = 30
WHOLE = Span(START, START + MINUTES * MINUTE)
STREAMS = ((BTC, "bars", "1m"), (ETH, "bars", "1m"))
STATES = st.sampled_from([state for state in State if state is not State.UNFETCHED])
PIECE = st.tuples(st.integers(0, MINUTES - 1), st.integers(1, 12), STATES)


def observation(piece):
    first, length, state = piece
    end = min(first + length, MINUTES)
    return Observation(Span(START + first * MINUTE, START + end * MINUTE), state)


def batch(pieces, *, instrument=BTC, known=KNOWN):
    return observations_frame(
        [observation(piece) for piece in pieces],
        instrument_id=instrument,
        venue="binance",
        timeframe="1m",
        source="rest",
        known_from=known,
    )


def learn(model, pieces, instrument):
    """Lay pieces learnt at one moment over the model, weaker states first."""
    for first, length, state in sorted(pieces, key=lambda piece: piece[2].rank):
        for minute in range(first, min(first + length, MINUTES)):
            model[instrument, minute] = state.value


def minutes_of(tiled):
    """Return the state of each minute; assert that spans touch and do not overlap."""
    states = {}
    for instrument, _, _, start, end, state, *_ in tiled.iter_rows():
        for minute in range((start - START) // MINUTE, (end - START) // MINUTE):
            assert (instrument, minute) not in states
            states[instrument, minute] = state
    return states


def whole(model):
    return {
        (stream[0], minute): model.get((stream[0], minute), "unfetched")
        for stream in STREAMS
        for minute in range(MINUTES)
    }


def assert_maximal(tiled):
    before = tiled.shift(1)
    same = pl.Series([True] * tiled.height)
    for name in (*STREAM, "state"):
        same &= tiled[name].eq_missing(before[name])
    assert not (same & tiled["span_start"].eq_missing(before["span_end"])).any()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(PIECE, max_size=4), st.sampled_from([BTC, ETH])), max_size=6),
       st.integers(-1, 6), st.randoms(use_true_random=False))  # fmt: skip
def test_the_fold_tiles_exactly_in_maximal_runs_at_any_moment(told, hour, random):
    frames, model = [LEDGER.empty()], {}
    for number, (pieces, instrument) in enumerate(told):
        known = KNOWN + timedelta(hours=number)
        frames.append(batch(pieces, instrument=instrument, known=known))
        if number <= hour:
            learn(model, pieces, instrument)
    log = pl.concat(frames)
    shuffled = log[random.sample(range(log.height), log.height)]

    folded = fold(shuffled, known_at=KNOWN + timedelta(hours=hour))
    tiled = tiling(folded, STREAMS, WHOLE)

    assert minutes_of(tiled) == whole(model)
    assert_maximal(tiled)
    assert tiled["span_start"].min() == WHOLE.start
    assert tiled["span_end"].max() == WHOLE.end


@settings(max_examples=20, phases=GENERATED)
@given(
    st.lists(
        st.tuples(
            st.lists(PIECE, min_size=1, max_size=3),
            st.sampled_from([BTC, ETH]),
            st.integers(0, 4),
        ),
        max_size=6,
    )
)
def test_recording_keeps_every_past_and_commits_only_news(tmp_path_factory, told):
    """The clock jumps back and forth by less than the tolerance."""
    kernel = Kernel(tmp_path_factory.mktemp("ledger") / "lake")
    table = kernel.tables[LEDGER.name]
    model, past = {}, {}
    log = LEDGER.empty()
    for pieces, instrument, offset in told:
        known = KNOWN + offset * MINUTE
        frame = batch(pieces, instrument=instrument)
        before = dict(model)
        learn(model, pieces, instrument)
        version = table.head().version

        written = record(table, frame, known=known)

        changed = {key for key in model if model[key] != before.get(key)}
        assert (written > 0) == bool(changed)
        assert table.head().version == version + (written > 0) + (version < 0)
        assert record(table, frame, known=known) == 0
        stored = read_observations(kernel.store, table.head())
        added = stored.join(log, on=LEDGER.key, how="anti")
        assert added.height == written
        log = stored
        for key in changed:
            past.setdefault(key, []).append((added["known_from"][0], model[key]))
    assert log.select(LEDGER.key).is_unique().all()
    assert all(
        one[0] < other[0] for history in past.values() for one, other in itertools.pairwise(history)
    )
    for moment in log["known_from"].unique():
        seen = {
            key: [state for known, state in history if known <= moment][-1:]
            for key, history in past.items()
        }
        tiled = tiling(fold(log, known_at=moment), STREAMS, WHOLE)
        assert minutes_of(tiled) == whole({key: state[0] for key, state in seen.items() if state})


@settings(max_examples=40)
@given(st.lists(PIECE, max_size=8), st.integers(0, MINUTES - 1), st.integers(1, MINUTES))
def test_a_part_of_the_tiling_is_the_tiling_of_the_part(pieces, first, length):
    part = Span(START + first * MINUTE, START + (first + length) * MINUTE)
    folded = fold(batch(pieces))
    expected = {
        minute: state
        for minute, state in minutes_of(tiling(folded, STREAMS[:1], WHOLE)).items()
        if first <= minute[1] < first + length
    }
    found = minutes_of(tiling(folded, STREAMS[:1], part))
    beyond = {key: state for key, state in found.items() if key not in expected}
    assert {key: found[key] for key in expected} == expected
    assert set(beyond.values()) <= {"unfetched"}
    assert len(found) == length


def test_what_nobody_observed_carries_nulls():
    tiled = tiling(fold(LEDGER.empty()), STREAMS, WHOLE)
    told = tiled.select("state", "source", "evidence", "known_from").rows()
    assert told == [("unfetched", None, None, None)] * 2
    assert tiled.schema["known_from"] == Time


def test_runs_join_the_sources_and_keep_the_first_evidence():
    frame = pl.concat([batch([(0, 5, State.PRESENT)]), batch([(5, 5, State.PRESENT)])])
    frame = frame.with_columns(
        source=pl.Series(["rest", "archive"]), evidence=pl.Series([None, "a zip"])
    )
    joined = runs(fold(frame)).select("source", "evidence").row(0)
    assert joined == ("rest+archive", "a zip")


def test_equal_claims_of_one_moment_fold_alike_in_any_order():
    frame = pl.concat([batch([(0, 9, State.PRESENT)]), batch([(0, 4, State.PRESENT)])])
    frame = frame.with_columns(source=pl.Series(["rest", "archive"]))
    assert fold(frame).equals(fold(frame.reverse()))
