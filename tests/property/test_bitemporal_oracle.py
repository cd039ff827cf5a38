"""The span algebra against models that go minute by minute and row by row."""

from __future__ import annotations

import itertools
from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import KNOWN, START

from contracts.spec import Time
from lake.bitemporal import known_versions, paint, version_spans, visible

HORIZON = 24
HOUR = timedelta(hours=1)


def spans(horizon=HORIZON):
    bounds = st.tuples(st.integers(0, horizon - 1), st.integers(1, 8))
    return bounds.map(lambda told: (told[0], min(told[0] + told[1], horizon)))


@settings(max_examples=200)
@given(st.lists(spans(), max_size=12))
def test_paint_shows_what_a_wall_painted_cell_by_cell_shows(layers):
    wall = {}
    for number, (start, end) in enumerate(layers):
        wall.update(dict.fromkeys(range(start, end), number))

    seen = paint([(start, end, number) for number, (start, end) in enumerate(layers)])

    assert {cell: value for start, end, value in seen for cell in range(start, end)} == wall
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(seen))
    assert all(start < end for start, end, _ in seen)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(spans(), st.sampled_from("ab"), st.integers(0, 5)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_visible_is_the_highest_priority_at_each_moment_of_each_stream(told, random):
    rows = [(stream, *span, (level, i)) for i, (span, stream, level) in enumerate(told)]
    model = {}
    for stream, start, end, order in sorted(rows, key=lambda row: row[3]):
        model.update({(stream, cell): order for cell in range(start, end)})
    random.shuffle(rows)
    frame = pl.DataFrame(
        [(s, START + a * HOUR, START + b * HOUR, *order) for s, a, b, order in rows],
        schema={"stream": pl.String, "start": Time, "end": Time, "level": pl.Int64, "i": pl.Int64},
        orient="row",
    )

    seen = visible(frame, stream=["stream"], start="start", end="end", priority=["level", "i"])

    cells = {}
    for stream, start, end, *order in seen.iter_rows():
        for cell in range((start - START) // HOUR, (end - START) // HOUR):
            assert (stream, cell) not in cells, "two spans show one moment"
            cells[stream, cell] = tuple(order)
    assert cells == model
    assert seen.equals(seen.sort("stream", "start"))


@st.composite
def histories(draw):
    """Draw the versions of a few keys, and which superseded rows were copied how often."""
    versions = {
        key: sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=4)))
        for key in draw(st.sets(st.sampled_from("abcd"), max_size=4))
    }
    leftovers = draw(st.lists(st.sampled_from(sorted(versions)), max_size=4)) if versions else []
    return versions, leftovers


def frames(versions, leftovers, random):
    """Return current and superseded rows; some copies' originals still stand."""
    current = [(key, hours[-1], f"{key}{hours[-1]}") for key, hours in versions.items()]
    old = [(key, hour, f"{key}{hour}") for key, hours in versions.items() for hour in hours[:-1]]
    old += [(key, versions[key][-1], f"{key}{versions[key][-1]}") for key in leftovers]
    old += old[: len(old) // 2]
    random.shuffle(current)
    random.shuffle(old)
    return [
        pl.DataFrame(
            [(key, KNOWN + hour * HOUR, value) for key, hour, value in rows],
            schema={"key": pl.String, "known_from": Time, "value": pl.String},
            orient="row",
        ).lazy()
        for rows in (current, old)
    ]


@settings(max_examples=100)
@given(histories(), st.integers(-1, 10), st.randoms(use_true_random=False))
def test_known_versions_never_show_what_was_learnt_later(told, hour, random):
    versions, leftovers = told
    current, revisions = frames(versions, leftovers, random)
    model = {
        key: f"{key}{max(seen)}"
        for key, hours in versions.items()
        if (seen := [each for each in hours if each <= hour])
    }

    found = known_versions(current.collect(), revisions.collect(), ["key"], KNOWN + hour * HOUR)

    assert dict(found.select("key", "value").iter_rows()) == model
    assert found.height == len(model)


@settings(max_examples=100)
@given(histories(), st.randoms(use_true_random=False))
def test_version_spans_follow_one_another(told, random):
    versions, leftovers = told
    current, revisions = frames(versions, leftovers, random)
    model = [
        (key, hour, f"{key}{hour}", after)
        for key in sorted(versions)
        for hour, after in zip(versions[key], [*versions[key][1:], None], strict=True)
    ]

    found = version_spans(current, revisions, ["key"]).collect()

    assert [
        (key, (known - KNOWN) // HOUR, value, to and (to - KNOWN) // HOUR)
        for key, known, value, to in found.iter_rows()
    ] == model
