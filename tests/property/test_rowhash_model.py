"""The row hash against a plain-Python reading of its definition."""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_support import Kernel, Row, seal_early, series

from contracts.spec import Rule, Time
from contracts.tables import BARS
from contracts.time import to_micros
from lake.parts import read_row_hash
from lake.rowhash import EMPTY, column_constants, combine, frame_hash

MASK = (1 << 64) - 1
SCHEMA = {
    "f": pl.Float64,
    "i": pl.Int64,
    "small": pl.Int32,
    "b": pl.Boolean,
    "d": pl.Date,
    "t": Time,
    "s": pl.String,
    "m": Rule,
    "l": pl.List(pl.String),
}
texts = st.text(max_size=6)
ROW = st.fixed_dictionaries(
    {
        "f": st.none() | st.floats(allow_nan=False),
        "i": st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
        "small": st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
        "b": st.none() | st.booleans(),
        "d": st.none() | st.dates(date(1900, 1, 1), date(2100, 1, 1)),
        "t": st.none()
        | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        "s": st.none() | texts,
        "m": st.none() | st.decimals(-(10**15), 10**15, places=18),
        "l": st.none() | st.lists(texts, min_size=1, max_size=3),
    }
)


def frame_of(rows):
    return pl.DataFrame(rows, schema=SCHEMA)


def bits(value):
    if isinstance(value, float):
        return int.from_bytes(struct.pack(">d", value), "big")
    if isinstance(value, datetime):
        value = to_micros(value)
    elif isinstance(value, date):
        value = (value - date(1970, 1, 1)).days
    if isinstance(value, int):
        return int(value) & MASK
    text = "\x1f".join(value) if isinstance(value, list) else value
    text = f"{text:.18f}" if isinstance(text, Decimal) else text
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def mix(value):
    stirred = ((value ^ (value >> 29)) * 0xBF58476D1CE4E5B9) & MASK
    return stirred ^ (stirred >> 32)


def model(rows):
    first = second = 0
    for row in rows:
        total = 0
        for name, value in row.items():
            if value is not None:
                salt, factor = column_constants(name)
                salted = (bits(value) + salt) & MASK
                total += (salted ^ (salted >> 32)) * factor
        hashed = mix(total & MASK)
        first, second = (first + hashed) & MASK, (second + mix(hashed)) & MASK
    return f"{first:016x}{second:016x}"


@settings(max_examples=100)
@given(st.lists(ROW, max_size=6), st.booleans())
def test_the_hash_is_what_its_definition_says(rows, large):
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr("lake.rowhash._SMALL", 0)
        assert frame_hash(frame_of(rows)) == model(rows)


@settings(max_examples=50)
@given(st.lists(ROW, max_size=8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_it_is_additive_and_blind_to_order(rows, cut, random):
    shuffled = random.sample(rows, len(rows))
    pieces = [frame_of(shuffled[:cut]), frame_of(shuffled[cut:])]
    assert combine(frame_hash(piece) for piece in pieces) == frame_hash(frame_of(rows))


@settings(max_examples=100)
@given(st.lists(ROW, min_size=1, max_size=4), ROW, st.data())
def test_any_one_cell_changed_changes_it(rows, other, data):
    index = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(sorted(SCHEMA)))
    changed = [dict(row) for row in rows]
    changed[index][name] = other[name]
    assume(str(changed[index][name]) != str(rows[index][name]))
    assert frame_hash(frame_of(changed)) != frame_hash(frame_of(rows))


def test_two_columns_that_swap_their_values_change_it():
    one = pl.DataFrame({"open": [1.0], "close": [2.0]})
    assert frame_hash(one) != frame_hash(one.select(open="close", close="open"))


def test_no_rows_hash_to_zero():
    assert frame_hash(frame_of([])) == EMPTY
    assert combine([]) == EMPTY


def test_a_table_s_hash_does_not_depend_on_its_files(tmp_path, monkeypatch):
    """Many small appends, one large one and a layout that keeps merging hold the same rows."""
    hashes, counts = set(), set()
    for name, open_rows, step in (("one", 64_000, 60), ("tail", 64_000, 7), ("merge", 10, 7)):
        seal_early(monkeypatch, open_rows, fan_in=3)
        kernel = Kernel(tmp_path / name)
        for first in range(0, 60, step):
            kernel.publish(series(range(first, min(60, first + step))))
        files = kernel.tables[BARS.name].head().files
        hashes.add(combine(read_row_hash(kernel.store, BARS, entry) for entry in files))
        counts.add(len(files))
    assert len(hashes) == 1
    assert len(counts) > 1
    assert hashes == {frame_hash(kernel.rows(BARS))}

    kernel.step(hours=1)
    kernel.publish([Row(7, 1.0)])
    revised = kernel.tables[BARS.name].head().files
    assert combine(read_row_hash(kernel.store, BARS, entry) for entry in revised) not in hashes
