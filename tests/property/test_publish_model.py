"""Publishing against a dictionary of versions, with a layout that seals and merges early."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import (
    BAR_KEY,
    BTC,
    ETH,
    GENERATED,
    KNOWN,
    MINUTE,
    START,
    US,
    Kernel,
    Row,
    assert_spans_sound,
    bars_of,
    seal_early,
)

from contracts.errors import BeforeFirstKnowledgeError
from contracts.tables import BARS
from lake.transforms.bars import SOURCE_RANKS

YEAR_END = START.replace(month=12, day=31, hour=23, minute=50)
VALUES = ["close", "trade_count", "source"]

ROW = st.builds(
    Row,
    minute=st.integers(0, 19),
    close=st.sampled_from([99.5, 100.0, 101.5]),
    trades=st.none() | st.integers(0, 2),
    instrument=st.sampled_from([BTC, ETH]),
    source=st.sampled_from(sorted(SOURCE_RANKS)),
)
BATCH = st.lists(ROW, min_size=1, max_size=14, unique_by=lambda row: (row.instrument, row.minute))
STEPS = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(minutes=-1)])


@pytest.fixture(autouse=True)
def early_merges(monkeypatch):
    seal_early(monkeypatch, 6, fan_in=2, series=3)


class Model:
    """Versions of each bar, oldest first, as (known_from, close, trades, source)."""

    def __init__(self):
        self.versions = {}

    def publish(self, rows, known):
        """Take a batch in; return the numbers of new, revised, identical and refused rows."""
        verdicts = dict.fromkeys(("new", "revised", "identical", "refused"), 0)
        for partition in self._by_year(rows):
            told = [(row, self._verdict(row)) for row in partition]
            replaced = [self._stored(row)[0] for row, verdict in told if verdict == "revised"]
            at = max([known, *(moment + US for moment in replaced)])
            for row, verdict in told:
                verdicts[verdict] += 1
                if verdict in ("new", "revised"):
                    version = (at, row.close, row.trades, row.source)
                    self.versions.setdefault(self._key(row), []).append(version)
        return verdicts

    def known_at(self, moment):
        seen = {
            key: [version for version in versions if version[0] <= moment][-1:]
            for key, versions in self.versions.items()
        }
        return {key: versions[0] for key, versions in seen.items() if versions}

    def _verdict(self, row):
        stored = self._stored(row)
        if stored is None:
            return "new"
        if stored[1:3] == (row.close, row.trades):
            return "identical"
        outranked = SOURCE_RANKS[row.source] < SOURCE_RANKS[stored[3]]
        return "refused" if outranked else "revised"

    def _stored(self, row):
        return self.versions.get(self._key(row), [None])[-1]

    @staticmethod
    def _key(row):
        return row.instrument, YEAR_END + row.minute * MINUTE

    @classmethod
    def _by_year(cls, rows):
        years = {}
        for row in rows:
            years.setdefault(cls._key(row)[1].year, []).append(row)
        return years.values()


def read(bars):
    """Return bars by key, with what the model knows of them."""
    selected = bars.select("instrument_id", "open_time", "known_from", *VALUES)
    return {row[:2]: row[2:] for row in selected.iter_rows()}


def frame(rows):
    return bars_of(rows, start=YEAR_END)


@settings(max_examples=20, phases=GENERATED)
@given(st.lists(st.tuples(BATCH, STEPS), min_size=1, max_size=6))
def test_bars_are_what_a_dictionary_of_versions_says(tmp_path_factory, told):
    kernel, model = Kernel(tmp_path_factory.mktemp("publish") / "lake"), Model()
    earliest = KNOWN
    for batch, step in told:
        kernel.clock.set(max(kernel.clock.known() + step, KNOWN))
        expected = model.publish(batch, kernel.clock.known())

        done = kernel.publish_frame(frame(batch))

        found = {"new": done.new, "revised": done.revised, "identical": done.identical,
                 "refused": done.refused.height}  # fmt: skip
        assert found == expected
        versions = kernel.versions()
        again = kernel.publish_frame(frame(batch))
        assert (again.new, again.revised) == (0, 0)
        assert again.known_from is None
        assert kernel.versions() == versions
    kernel.step(hours=1)
    lk = kernel.lake()
    names = sorted({instrument for instrument, _ in model.versions})
    bars = lk.bars(names, timeframe="1m").collect()
    assert bars.equals(bars.sort("instrument_id", "open_time"))
    assert read(bars) == model.known_at(kernel.clock.known())

    history = lk.bar_history(names, timeframe="1m").collect()
    assert_spans_sound(history)
    every = {}
    for row in history.select("instrument_id", "open_time", "known_from", *VALUES).iter_rows():
        every.setdefault(row[:2], []).append(row[2:])
    assert every == model.versions
    moments = {earliest - US, *(version[0] for each in every.values() for version in each)}
    for moment in moments:
        assert_known_at(lk, names, model, moment)
    assert_files_few(kernel)


def assert_known_at(lk, names, model, moment):
    for name in names:
        expected = {
            key: version for key, version in model.known_at(moment).items() if key[0] == name
        }
        if expected:
            assert read(lk.bars(name, timeframe="1m", known_at=moment).collect()) == expected
        else:
            with pytest.raises(BeforeFirstKnowledgeError):
                lk.bars(name, timeframe="1m", known_at=moment)


def assert_files_few(kernel):
    view = kernel.tables[BARS.name].head()
    assert sum(entry.rows for entry in view.files) == kernel.rows(BARS).height
    assert kernel.rows(BARS).select(BAR_KEY).is_unique().all()
    years = {entry.partition["year"] for entry in view.files}
    assert len(view.files) <= 8 * len(years)


@settings(max_examples=8, phases=GENERATED)
@given(
    st.lists(ROW, min_size=2, max_size=14, unique_by=lambda row: (row.instrument, row.minute)),
    BATCH,
    st.data(),
)
def test_how_a_batch_is_split_and_ordered_does_not_matter(tmp_path_factory, rows, before, data):
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(1, len(rows) - 1))
    seen = []
    for pieces in ([rows], [shuffled[:cut], shuffled[cut:]], [[row] for row in shuffled]):
        kernel = Kernel(tmp_path_factory.mktemp("split") / "lake")
        kernel.publish_frame(frame(before))
        kernel.step(hours=1)
        for piece in pieces:
            kernel.publish_frame(frame(piece))
        bars = kernel.rows(BARS).drop("known_from")
        history = kernel.lake().bar_history("*", timeframe="1m").collect()
        versions = history.drop("known_from", "known_to")
        seen.append((bars.rows(), versions.rows()))
    assert seen[0] == seen[1] == seen[2]


@settings(max_examples=8, phases=GENERATED)
@given(st.lists(BATCH, min_size=2, max_size=4))
def test_sources_of_different_rank_may_arrive_in_any_order(tmp_path_factory, batches):
    """One batch per source: the source of the highest rank has the last word either way."""
    ranked = [
        [Row(row.minute, row.close, row.trades, row.instrument, source) for row in batch]
        for batch, source in zip(batches, SOURCE_RANKS, strict=False)
    ]
    seen = []
    for arrival in (ranked, ranked[::-1]):
        kernel = Kernel(tmp_path_factory.mktemp("ranks") / "lake")
        for batch in arrival:
            kernel.publish_frame(frame(batch))
            kernel.step(minutes=1)
        seen.append(kernel.rows(BARS).drop("known_from", "source", "available_at").rows())
    assert seen[0] == seen[1]


def test_a_confirmation_by_a_higher_rank_is_no_new_version(tmp_path):
    kernel = Kernel(tmp_path / "lake")
    kernel.publish([Row(0, 100.0, source="rest")])
    kernel.step(hours=1)
    done = kernel.publish([Row(0, 100.0, source="archive")])
    assert (done.identical, done.known_from) == (1, None)
    assert kernel.rows(BARS)["source"].to_list() == ["rest"]
    assert kernel.publish([Row(0, 101.0, source="rest")]).revised == 1


def test_nan_equals_nan_and_null_equals_null(tmp_path):
    kernel = Kernel(tmp_path / "lake")
    rows = bars_of([Row(0, 100.0, trades=None)]).with_columns(quote_volume=pl.lit(float("nan")))
    kernel.publish_frame(rows)
    assert kernel.publish_frame(rows).identical == 1
    told = rows.with_columns(trade_count=pl.lit(7, pl.Int64))
    assert kernel.publish_frame(told).revised == 1
    assert kernel.rows(BARS)["trade_count"].to_list() == [7]
