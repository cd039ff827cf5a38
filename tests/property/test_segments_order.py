"""However bars are spread over files, the planned segments give each once, in order."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.time import parse_time
from lake.parts import FileEntry
from lake.segments import plan_segments

START = parse_time("2026-03-01")
STEP = timedelta(minutes=1)
HELD, OTHER = "BTC-USDT-SPOT.BINANCE", "ETH-USDT-SPOT.BINANCE"


def entry(number, minutes, others):
    """Return what a log says of a file that holds those minutes of the asked instrument."""
    opens = [START + minute * STEP for minute in (*minutes, *others)]
    names = [HELD] * len(minutes) + [OTHER] * len(others)
    return FileEntry(
        path=f"part-{number}.parquet",
        size=1,
        rows=len(opens),
        partition={},
        low={"open_time": min(opens), "instrument_id": min(names)},
        high={"open_time": max(opens), "instrument_id": max(names)},
    )


@st.composite
def layouts(draw):
    """Spread minutes over files, some of one instrument and dense, some neither."""
    minutes = draw(st.lists(st.integers(0, 60), unique=True, max_size=60))
    held = {minute: draw(st.integers(0, 5)) for minute in sorted(minutes)}
    if draw(st.booleans()):
        held = {minute: minute // 12 for minute in held}
    files = {}
    for number in range(6):
        mine = [minute for minute, at in held.items() if at == number]
        others = draw(st.lists(st.integers(0, 60), max_size=3)) if draw(st.booleans()) else []
        if mine or others:
            files[f"part-{number}.parquet"] = (entry(number, mine, others), mine)
    bounds = draw(st.tuples(st.none() | st.integers(0, 60), st.none() | st.integers(0, 61)))
    return files, bounds


@settings(max_examples=300)
@given(layouts())
def test_every_bar_comes_once_and_in_order(layout):
    files, (first, last) = layout
    start = None if first is None else START + first * STEP
    end = None if last is None else START + last * STEP
    if start is not None and end is not None and start >= end:
        return
    segments = plan_segments(
        [told for told, _ in files.values() if told.may_hold("instrument_id", HELD, HELD)],
        step=STEP,
        start=start,
        end=end,
    )
    read = []
    for segment in segments:
        rows = [START + minute * STEP for told in segment.files for minute in files[told.path][1]]
        if not segment.whole:
            rows = [
                opened
                for opened in rows
                if (segment.start is None or opened >= segment.start)
                and (segment.end is None or opened < segment.end)
            ]
        read += rows if segment.in_order else sorted(rows)
    every = sorted(START + minute * STEP for _, mine in files.values() for minute in mine)
    inside = [
        opened
        for opened in every
        if (start is None or opened >= start) and (end is None or opened < end)
    ]
    assert read == inside


def test_dense_files_of_one_instrument_are_read_as_they_are():
    files = [entry(1, range(10, 20), []), entry(0, range(10), []), entry(2, range(25, 30), [])]
    (segment,) = plan_segments(files, step=STEP)
    assert [told.path for told in segment.files] == [f"part-{n}.parquet" for n in range(3)]
    assert segment.whole


def test_a_file_of_several_instruments_is_read_in_the_gaps_only():
    files = [entry(0, range(10, 20), []), entry(1, [*range(10), *range(20, 30)], [5, 25])]
    before, own, after = plan_segments(files, step=STEP)
    assert own.whole
    assert (before.end, after.start) == (START + 10 * STEP, START + 20 * STEP)
    assert not before.whole
    assert before.in_order
