"""Whatever is appended in whatever sizes, files stay few and rewriting stays bounded."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import bars_of, seal_early, series

from contracts.tables import BARS
from lake.layout import absorbed, file_frames
from lake.parts import FileEntry

OPEN = 100
ROW_BYTES = 50


def entry(rows, number):
    return FileEntry(f"part-{number:06}.parquet", rows * ROW_BYTES, rows, {}, {}, {})


@pytest.fixture(autouse=True)
def early(monkeypatch):
    seal_early(monkeypatch, OPEN, fan_in=4)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([1, 3, 24, 60, 99, 100, 150, 400]), min_size=1, max_size=200))
def test_files_stay_few_and_each_row_is_rewritten_a_bounded_number_of_times(appends):
    files, written = [], 0
    for number, rows in enumerate(appends):
        taken = absorbed(BARS, files, rows, rewritten=[])
        assert len({each.path for each in taken}) == len(taken)
        merged = rows + sum(each.rows for each in taken)
        written += merged
        files = [each for each in files if each not in taken] + [entry(merged, number)]
        assert sum(1 for each in files if each.rows < OPEN) <= 1
    total = sum(appends)
    assert sum(each.rows for each in files) == total
    classes = 2 + max(0, math.ceil(math.log(max(total / OPEN, 1), 4)))
    assert len(files) <= 5 * classes
    tail = OPEN / min(appends)
    assert written <= total * (tail + classes + 1)


def test_a_file_that_is_replaced_anyway_is_not_taken_along():
    files = [entry(10, 1), entry(20, 2)]
    assert absorbed(BARS, files, 5, rewritten=[files[0]]) == [files[1]]
    assert absorbed(BARS, files, 0, rewritten=[]) == []


def test_a_frame_is_cut_into_files_without_losing_a_row(monkeypatch):
    frame = bars_of(series(range(40_000))).with_columns(known_from=pl.col("open_time"))
    monkeypatch.setattr("lake.layout.SEALED_BYTES", 1 << 20)
    pieces = list(file_frames(BARS, frame))
    assert len(pieces) > 1
    assert pl.concat(pieces).equals(frame)
    assert all(piece.height >= BARS.row_group_rows for piece in pieces[:-1])
