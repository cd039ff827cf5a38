import math
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Timeframe
from contracts.tables import BARS
from contracts.time import Span
from contracts.validate import is_unique, validate
from quality.bars import CANDIDATE_SCHEMA, audit_bars
from quality.quarantine import quarantine_rows

START = datetime(2026, 3, 24, tzinfo=UTC)
ASKED = Span(START, START + timedelta(hours=1))
MINUTE = Timeframe.parse("1m")

odd = st.sampled_from([None, math.nan, math.inf, -math.inf, -1.0, 0.0, 1.0, 2.0, 3.0])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "minute": st.integers(0, 5),
            "open": odd, "high": odd, "low": odd, "close": odd, "volume": odd,
            "quote_volume": odd, "taker_buy_volume": odd, "taker_buy_quote_volume": odd,
            "trade_count": st.sampled_from([None, -1, 0, 3]),
            "late": st.booleans(),
        }
    ),
    max_size=12,
)  # fmt: skip


def frame_of(drawn):
    records = [
        drawn_row
        | {
            "instrument_id": "BTC-USDT-SPOT.BINANCE", "venue": "binance", "timeframe": "1m",
            "year": 2026, "open_time": START + timedelta(minutes=drawn_row["minute"]),
            "source": "rest",
            "available_at": START + timedelta(minutes=drawn_row["minute"] + 1 + drawn_row["late"]),
        }
        for drawn_row in drawn
    ]  # fmt: skip
    picked = [{name: record[name] for name in CANDIDATE_SCHEMA} for record in records]
    return pl.DataFrame(picked, schema=CANDIDATE_SCHEMA)


def sound(row):
    """The rules of a bar, read off one row."""
    prices = [row[name] for name in ("open", "high", "low", "close")]
    if any(p is None or not math.isfinite(p) or p <= 0 for p in prices):
        return False
    volumes = [row[n] for n in ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume")]
    volumes = [row["volume"] if row["volume"] is not None else -1, *filter_none(volumes)]
    if any(not math.isfinite(v) or v < 0 for v in volumes):
        return False
    if row["trade_count"] is not None and row["trade_count"] < 0:
        return False
    for part, whole in (
        ("taker_buy_volume", "volume"), ("taker_buy_quote_volume", "quote_volume"),
    ):  # fmt: skip
        if None not in (row[part], row[whole]) and row[part] > row[whole]:
            return False
    return row["high"] == max(prices) and row["low"] == min(prices)


def filter_none(values):
    return [value for value in values if value is not None]


@given(rows)
def test_audits_agree_with_the_rules_read_row_by_row(drawn):
    frame = frame_of(drawn)
    asserted = [*BARS.key, *BARS.value_columns]
    told = [tuple(map(repr, row)) for row in frame.select(asserted).rows()]
    single = [i for i, row in enumerate(told) if row not in told[:i]]
    times = [frame["open_time"][i] for i in single]
    expected = [
        i for i in single
        if sound(frame.row(i, named=True)) and times.count(frame["open_time"][i]) == 1
    ]  # fmt: skip
    verdict = audit_bars(frame, asked=ASKED, timeframe=MINUTE)
    assert verdict.good.equals(frame[expected], null_equal=True)
    assert verdict.good.height + verdict.bad.height == len(single)
    assert verdict.bad["reasons"].list.len().min() != 0
    validate(BARS, verdict.good, without=("known_from",))
    kept = quarantine_rows(verdict.bad, table=BARS, run_id="run", known_from=START)
    assert kept.height == verdict.bad.height


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 9))))
def test_uniqueness_agrees_with_a_set(keys):
    frame = pl.DataFrame(keys, schema=["a", "b", "n"], orient="row")
    for order in (frame, frame.sort("a", "b", "n"), frame.sort("n")):
        assert is_unique(order, ("a", "b", "n")) == (len(set(keys)) == len(keys))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 90)), min_size=20, unique=True))
def test_long_runs_of_a_prefix_are_proved_unique_and_doubles_found(keys):
    ordered = sorted(keys) * 1
    frame = pl.DataFrame(ordered, schema=["a", "n"], orient="row")
    assert is_unique(frame, ("a", "n"))
    assert not is_unique(pl.concat([frame, frame.tail(1)]), ("a", "n"))
    assert not is_unique(pl.concat([frame, frame.head(1)]), ("a", "n"))
