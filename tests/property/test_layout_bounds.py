"""Whatever is appended in whatever sizes, files stay few and rewriting stays bounded."""

from __future__ import annotations

import math
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import GENERATED, KNOWN, bars_of, seal_early, series

from contracts.tables import BARS
from lake.appends import append_to_partition
from lake.layout import file_frames
from lake.parts import write_part
from lake.scan import read_files
from lake.segments import is_pure
from lake.store import Store

OPEN, FAN_IN, SERIES = 100, 4, 12
NAMES = [f"{base}-USDT-SPOT.BINANCE" for base in ("ADA", "BTC", "ETH", "SOL", "XRP")]


@pytest.fixture(autouse=True)
def early(monkeypatch):
    seal_early(monkeypatch, OPEN, fan_in=FAN_IN, series=SERIES)


class Partition:
    """One partition in a folder, with what was ever written to it."""

    def __init__(self, root):
        self.store = Store(root, fsync=False)
        self.files, self.written, self.rows = [], 0, 0
        self.next = dict.fromkeys(NAMES, 0)

    def append(self, names, each, rewritten=()):
        new = bars_of(
            row
            for name in names
            for row in series(range(self.next[name], self.next[name] + each), instrument=name)
        ).with_columns(known_from=pl.lit(KNOWN, pl.Datetime("us", "UTC")))
        for name in names:
            self.next[name] += each
        self.rows += new.height
        frames, taken = append_to_partition(self.store, BARS, self.files, new, rewritten=rewritten)
        gone = {entry.path for entry in taken}
        assert len(gone) == len(taken)
        assert not gone & {entry.path for entry in rewritten}
        self.written += sum(frame.height for frame in frames)
        self.files = [entry for entry in self.files if entry.path not in gone]
        self.files += [write_part(self.store, BARS, frame).entry for frame in frames]
        return taken


APPENDS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True),
        st.sampled_from([1, 3, 11, 12, 40, 100, 150]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=12, phases=GENERATED)
@given(APPENDS)
def test_files_stay_few_and_each_row_is_rewritten_a_bounded_number_of_times(
    tmp_path_factory, appends
):
    held = Partition(tmp_path_factory.mktemp("layout"))
    for names, each in appends:
        held.append(names, each)
        assert sum(entry.rows for entry in held.files) == held.rows
        assert sum(1 for entry in held.files if entry.rows < SERIES) <= 1
    rows = read_files(held.store, BARS, held.files)
    assert rows.select("instrument_id", "open_time").n_unique() == held.rows == rows.height
    assert len(held.files) <= (1 + len(NAMES)) * most_files(held.rows)
    least = min(len(names) * each for names, each in appends)
    classes = 1 + math.ceil(math.log(max(held.rows / OPEN, 1), FAN_IN))
    growing = 2 * OPEN / SERIES
    assert held.written <= held.rows * (OPEN / least + growing + classes + 1)


def most_files(rows):
    """Return how many files so many rows of one kind may lie in."""
    classes = 1 + math.ceil(math.log(max(rows / OPEN, 1), FAN_IN))
    return 1 + FAN_IN * classes


def test_one_instrument_lies_in_files_of_its_own(tmp_path):
    """As many hourly updates give: only the newest bars share a file."""
    held = Partition(tmp_path)
    for _ in range(150):
        held.append(NAMES, 3)
    mixed = [entry for entry in held.files if not is_pure(entry)]
    assert len(mixed) <= 1
    assert sum(entry.rows for entry in mixed) < len(NAMES) * SERIES
    for name in NAMES:
        own = [
            entry for entry in held.files if is_pure(entry) and entry.low["instrument_id"] == name
        ]
        assert len(own) <= most_files(450)
        ordered = sorted(own, key=lambda entry: entry.low["open_time"])
        for before, after in pairwise(ordered):
            assert before.high["open_time"] < after.low["open_time"]


def test_many_instruments_share_files_until_they_are_large(tmp_path):
    held = Partition(tmp_path)
    for _ in range(20):
        held.append(NAMES, 11)
    assert any(is_pure(entry) for entry in held.files)
    seen = {entry.low["instrument_id"] for entry in held.files if is_pure(entry)}
    assert seen == set(NAMES)


def test_a_file_that_is_replaced_anyway_is_not_taken_along(tmp_path):
    held = Partition(tmp_path)
    held.append(NAMES[:2], 4)
    first = held.files[0]
    assert held.append(NAMES[:2], 1, rewritten=[first]) == []
    second = next(entry for entry in held.files if entry.path != first.path)
    assert held.append(NAMES[:2], 1, rewritten=[first]) == [second]


def test_a_frame_is_cut_into_files_without_losing_a_row(monkeypatch):
    frame = bars_of(series(range(40_000))).with_columns(known_from=pl.col("open_time"))
    monkeypatch.setattr("lake.layout.SEALED_BYTES", 1 << 20)
    pieces = list(file_frames(BARS, frame))
    assert len(pieces) > 1
    assert pl.concat(pieces).equals(frame)
    assert all(piece.height >= BARS.row_group_rows for piece in pieces[:-1])
