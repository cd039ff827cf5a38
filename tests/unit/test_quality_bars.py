from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from contracts.names import Timeframe
from contracts.tables import BARS
from contracts.time import Span
from contracts.validate import validate
from quality.bars import CANDIDATE_SCHEMA, audit_bars
from quality.breaker import Breaker

NAN, INF = float("nan"), float("inf")
START = datetime(2026, 3, 24, tzinfo=UTC)
ASKED = Span(START, START + timedelta(hours=1))
MINUTE = Timeframe.parse("1m")


def candidate(make_bars, rows=10, **options):
    return make_bars(rows, **options).drop("known_from")


def changed(make_bars, index=3, **values):
    at = pl.int_range(pl.len()) == index
    return candidate(make_bars).with_columns(
        pl.when(at).then(pl.lit(value, dtype=BARS.schema[name])).otherwise(name).alias(name)
        for name, value in values.items()
    )


def judged(frame, asked=ASKED, timeframe=MINUTE):
    return audit_bars(frame, asked=asked, timeframe=timeframe)


def test_a_sound_batch_passes_and_keeps_the_contract(make_bars):
    frame = candidate(make_bars, 60)
    verdict = judged(frame)
    assert verdict.good is frame
    assert verdict.bad.is_empty()
    assert all(result.passed for result in verdict.results)
    validate(BARS, verdict.good, without=("known_from",))
    assert judged(frame.clear()).bad_share == 0.0


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({"open": None}, {"price_positive", "high_covers_body", "low_covers_body"}),
        ({"close": NAN}, {"price_positive", "high_covers_body"}),
        ({"high": INF}, {"price_positive"}),
        ({"low": 0.0}, {"price_positive"}),
        ({"volume": None}, {"volume_sound"}),
        ({"volume": -1.0}, {"volume_sound", "taker_within_volume"}),
        ({"quote_volume": INF}, {"volume_sound"}),
        ({"taker_buy_volume": NAN}, {"volume_sound", "taker_within_volume"}),
        ({"trade_count": -1}, {"trade_count_sound"}),
        ({"high": 100.0}, {"high_covers_body", "high_above_low"}),
        ({"low": 900.0}, {"low_covers_body", "high_above_low"}),
        ({"taker_buy_volume": 1e9}, {"taker_within_volume"}),
        ({"open_time": START + timedelta(minutes=3, seconds=1)}, {"on_grid"}),
        ({"source": None}, {"required_present"}),
        ({"year": 2025}, {"year_of_open_time"}),
        ({"available_at": START}, {"available_after_close"}),
        (
            {"open_time": None},
            {"required_present", "on_grid", "year_of_open_time", "available_after_close"},
        ),
        ({"close": -1.0, "trade_count": -1}, {"price_positive", "trade_count_sound"}),
    ],
)
def test_a_bad_row_is_set_aside_with_every_reason(make_bars, values, reasons):
    frame = changed(make_bars, **values)
    verdict = judged(frame)
    assert verdict.good.height == 9
    assert not verdict.blocked
    assert set(verdict.bad["reasons"].item()) >= reasons
    validate(BARS, verdict.good, without=("known_from",))
    assert {r.audit for r in verdict.failed()} == set(verdict.bad["reasons"].item())
    assert verdict.bad.drop("reasons").equals(frame.slice(3, 1), null_equal=True)


def test_null_means_absent_where_the_venue_has_none(make_bars):
    holes = [column.name for column in BARS.columns if column.nullable]
    frame = candidate(make_bars).with_columns(pl.lit(None, BARS.schema[n]).alias(n) for n in holes)
    assert judged(frame).good.height == 10


def test_float_noise_does_not_refuse_a_bar(make_bars):
    frame = candidate(make_bars).with_columns(taker_buy_volume=pl.col("volume") * (1 + 1e-12))
    assert judged(frame).bad.is_empty()


def test_equal_doubles_are_kept_once_and_counted(make_bars):
    frame = candidate(make_bars)
    doubled = pl.concat([frame, frame.head(3)])
    verdict = judged(doubled)
    assert verdict.good.equals(frame)
    assert verdict.bad.is_empty()
    (found,) = verdict.failed()
    assert (found.audit, found.blocking, found.bad_rows) == ("duplicate_rows", False, 3)
    assert Breaker().trips(verdict) is None


def test_doubles_are_compared_by_value_and_null_equals_null(make_bars):
    frame = candidate(make_bars).with_columns(quote_volume=pl.lit(None, pl.Float64))
    again = frame.head(1).with_columns(source=pl.lit("archive"))
    verdict = judged(pl.concat([frame, again]))
    assert verdict.good["source"].unique().to_list() == ["rest"]
    assert verdict.failed()[0].audit == "duplicate_rows"


def test_of_conflicting_doubles_none_is_preferred(make_bars):
    frame = candidate(make_bars)
    other = frame.head(1).with_columns(volume=pl.col("volume") + 1)
    verdict = judged(pl.concat([frame, frame.head(1), other]))
    assert verdict.good.equals(frame.slice(1))
    assert verdict.bad["reasons"].to_list() == [["conflicting_duplicate"]] * 2
    assert {r.audit: r.bad_rows for r in verdict.failed()} == {
        "duplicate_rows": 1, "conflicting_duplicate": 2,
    }  # fmt: skip


@pytest.mark.parametrize("shift", [-1, 60])
def test_a_shifted_page_blocks_the_batch(make_bars, shift):
    shifted = candidate(make_bars, 2, start=START + timedelta(minutes=shift))
    verdict = judged(shifted)
    assert verdict.blocked
    assert "outside_asked" in Breaker().trips(verdict)


def test_the_end_of_the_asked_span_is_exclusive(make_bars):
    assert not judged(candidate(make_bars, 60)).blocked
    assert judged(candidate(make_bars, 61)).results[2].bad_rows == 1


def test_a_batch_of_another_timeframe_blocks(make_bars):
    verdict = judged(candidate(make_bars, 1, timeframe="1h"))
    assert verdict.blocked
    assert verdict.failed()[0].audit == "timeframe_asked"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.drop("close"),
        lambda f: f.select(reversed(f.columns)),
        lambda f: f.with_columns(pl.col("volume").cast(pl.Int64)),
        lambda f: f.with_columns(known_from=pl.lit(START)),
        lambda f: f.clear().drop("close"),
    ],
)
def test_a_frame_of_another_schema_blocks_as_a_whole(make_bars, spoil):
    frame = spoil(candidate(make_bars))
    verdict = judged(frame)
    assert verdict.blocked
    assert verdict.good.is_empty()
    assert verdict.bad.height == frame.height
    assert Breaker().trips(verdict).startswith("schema failed")
    assert verdict.results[0].detail


def test_the_candidate_lacks_only_known_from():
    assert [*CANDIDATE_SCHEMA, "known_from"] == list(BARS.schema)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("bars/binance_spot_2026-03_04/BTC_USDT-1m.feather", "1m"),
        ("bars/bybit_spot_2025-04_08/ETH_USDT-5m.feather", "5m"),
        ("bars/binance_spot_long/BTC_USDT-1h.feather", "1h"),
    ],
)
def test_recorded_bars_pass(recorded, file, code):
    timeframe = Timeframe.parse(code)
    tape = pl.read_ipc(recorded / file)
    opens = pl.col("date").dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    frame = tape.with_columns(
        instrument_id=pl.lit("BTC-USDT-SPOT.BINANCE"), venue=pl.lit("binance"),
        timeframe=pl.lit(code), year=opens.dt.year(), open_time=opens,
        source=pl.lit("rest"), available_at=opens + pl.lit(timeframe.duration),
    )  # fmt: skip
    frame = frame.select(
        (pl.col(n) if n in frame.columns else pl.lit(None)).cast(t).alias(n)
        for n, t in CANDIDATE_SCHEMA.items()
    )
    bounds = frame.select(pl.col("open_time").min(), last=pl.col("open_time").max()).row(0)
    verdict = judged(frame, Span(bounds[0], bounds[1] + timeframe.duration), timeframe)
    assert verdict.good.height == frame.height > 1_000
    validate(BARS, verdict.good, without=("known_from",))
