"""What is composed onto a lazy read equals what is done to the rows once read."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from kernel_support import BTC, ETH, KNOWN, START, Kernel, Row, seal_early, series

import lake

QUESTIONS = {
    "head": lambda rows: rows.head(5),
    "tail": lambda rows: rows.tail(3),
    "slice": lambda rows: rows.slice(7, 4),
    "filter": lambda rows: rows.filter(pl.col("open_time") >= START + timedelta(minutes=12)),
    "filter on a neighbour": lambda rows: rows.filter(
        (pl.col("close") > pl.col("close").shift(1)).over("instrument_id")
    ),
    "select": lambda rows: rows.select("open_time", "close"),
    "select one": lambda rows: rows.select("close"),
    "count": lambda rows: rows.select(pl.len()),
    "row index": lambda rows: rows.with_row_index().filter(pl.col("index") % 3 == 0),
    "group": lambda rows: rows.group_by("instrument_id", maintain_order=True).agg(
        pl.col("close").last(), pl.col("volume").sum().round(6), bars=pl.len()
    ),
    "window": lambda rows: rows.with_columns(
        change=pl.col("close").pct_change().over("instrument_id")
    ),
    "resample": lambda rows: (
        rows.filter(pl.col("instrument_id") == BTC)
        .set_sorted("open_time")
        .group_by_dynamic("open_time", every="5m")
        .agg(pl.col("open").first(), pl.col("close").last())
    ),
    "join": lambda rows: rows.join(
        rows.select("instrument_id", "open_time", other="close"),
        on=["instrument_id", "open_time"],
        maintain_order="left",
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Make a lake whose bars lie in pure, mixed, overlapping and rewritten files."""
    where = tmp_path_factory.mktemp("lazy") / "lake"
    with pytest.MonkeyPatch.context() as patch:
        seal_early(patch, 6, fan_in=4, series=5)
        made = Kernel(where)
        made.publish(series(range(10, 20)))
        made.publish([*series(range(4)), *series(range(3), instrument=ETH)])
        made.publish([*series(range(20, 30, 2)), *series(range(5, 8), instrument=ETH)])
        made.publish(series(range(21, 30, 2)))
        made.publish(series(range(4, 10)))
        made.observe(0, 30)
        made.step(hours=1)
        made.publish([Row(3, 200.0), Row(15, 201.0), Row(22, 202.0)])
    return where


@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
@pytest.mark.parametrize("known_at", [None, KNOWN, KNOWN + timedelta(hours=2)])
@pytest.mark.parametrize("names", [BTC, [BTC, ETH], "*"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_lazy_and_eager_answers_are_equal(root, question, names, known_at, engine):
    ask = QUESTIONS[question]
    rows = lake.open(root).bars(names, timeframe="1m", known_at=known_at)
    whole = rows.collect()
    assert whole.height == (30 if names == BTC else 36)
    assert whole.equals(whole.sort("instrument_id", "open_time"))
    assert ask(rows).collect(engine=engine).equals(ask(whole.lazy()).collect(engine=engine))
