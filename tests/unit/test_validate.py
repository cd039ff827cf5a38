import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from contracts.errors import ContractError, InvariantError
from contracts.tables import BAR_REVISIONS, BARS, LEDGER, TABLES
from contracts.validate import is_constant, is_unique, validate

NAN, INF = float("nan"), float("inf")
MINUTE = timedelta(minutes=1)


def row(make_bars, index=3, **values):
    """Ten bars, one of them changed."""
    at = pl.int_range(pl.len()) == index
    frame = make_bars()
    return frame.with_columns(
        pl.when(at).then(pl.lit(value, dtype=BARS.schema[name])).otherwise(name).alias(name)
        for name, value in values.items()
    )


def test_a_sound_frame_comes_back_unchanged(make_bars):
    frame = make_bars(200)
    assert validate(BARS, frame) is frame
    assert validate(BARS, make_bars(0)).is_empty()
    assert validate(BAR_REVISIONS, frame) is frame


@pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
def test_every_table_has_a_model(spec):
    assert validate(spec, spec.empty()).is_empty()


def test_nulls_pass_where_the_column_allows_them(make_bars):
    holes = {column.name: None for column in BARS.columns if column.nullable}
    assert holes
    validate(BARS, row(make_bars, **holes))
    validate(BARS, make_bars().with_columns(pl.lit(None, BARS.schema[n]).alias(n) for n in holes))


@pytest.mark.parametrize(
    ("values", "check"),
    [
        ({"close": None}, "close_not_null"),
        ({"source": None}, "source_not_null"),
        ({"open": NAN}, "open_finite"),
        ({"high": INF}, "price_positive"),
        ({"quote_volume": INF}, "quote_volume_finite"),
        ({"low": 0.0}, "price_positive"),
        ({"low": -1.0}, "price_positive"),
        ({"volume": -1.0}, "volume_sound"),
        ({"taker_buy_quote_volume": NAN}, "volume_sound"),
        ({"trade_count": -1}, "trade_count_sound"),
        ({"high": 100.0}, "high_covers_body"),
        ({"low": 220.0}, "low_covers_body"),
        ({"low": 220.0}, "high_above_low"),
        ({"taker_buy_volume": 1e9}, "taker_within_volume"),
        ({"taker_buy_quote_volume": 1e12}, "taker_within_quote_volume"),
        ({"open_time": datetime(2026, 3, 24, 0, 3, 1, tzinfo=UTC)}, "on_grid"),
        ({"timeframe": "1 minute"}, "on_grid"),
        ({"timeframe": "1h"}, "on_grid"),
        ({"available_at": datetime(2026, 3, 24, tzinfo=UTC)}, "available_after_close"),
        (
            {"available_at": datetime(2026, 3, 24, 0, 3, 59, tzinfo=UTC)},
            "available_after_close",
        ),
        ({"year": 2025}, "year_of_open_time"),
        ({"year": 1970}, "year_of_open_time"),
        ({"open_time": datetime(2026, 3, 24, tzinfo=UTC)}, "key_unique"),
    ],
)
def test_each_broken_rule_is_named(make_bars, values, check):
    with pytest.raises(ContractError) as caught:
        validate(BARS, row(make_bars, **values))
    error = caught.value
    assert check in error.failures
    assert error.failures[check] == (2 if check == "key_unique" else 1)
    assert error.table == "silver.bars"
    assert check in str(error)
    assert set(error.example) == set(BARS.schema)
    assert type(pickle.loads(pickle.dumps(error))) is ContractError
    assert error.__cause__ is None


def test_float_noise_of_the_taker_volume_passes(make_bars):
    frame = make_bars().with_columns(taker_buy_volume=pl.col("volume") * (1 + 1e-12))
    assert validate(BARS, frame) is frame


def test_years_and_timeframes_may_be_mixed(make_bars):
    new_year = datetime(2025, 12, 31, 23, 58, tzinfo=UTC)
    decades = [make_bars(2, start=datetime(year, 1, 1, tzinfo=UTC)) for year in (2015, 2024)]
    mixed = pl.concat([*decades, make_bars(4, start=new_year), make_bars(2, timeframe="1h")])
    assert validate(BARS, mixed).height == 10
    with pytest.raises(ContractError) as caught:
        validate(BARS, mixed.with_columns(year=pl.lit(2024, pl.Int32)))
    assert caught.value.failures == {"year_of_open_time": 8}


def test_the_first_bar_of_a_year_belongs_to_it(make_bars):
    frame = make_bars(2, start=datetime(2025, 12, 31, 23, 59, tzinfo=UTC))
    validate(BARS, frame)
    with pytest.raises(ContractError) as caught:
        validate(BARS, frame.with_columns(year=pl.lit(2025, pl.Int32)))
    assert caught.value.failures == {"year_of_open_time": 1}


def test_pandera_and_our_rules_cannot_disagree_unseen(make_bars, monkeypatch):
    monkeypatch.setattr("contracts.validate._passes", lambda *_: False)
    with pytest.raises(InvariantError, match="keeps every rule"):
        validate(BARS, make_bars())


def test_schema_type_and_laziness_are_refused(make_bars):
    frame = make_bars()
    with pytest.raises(ContractError, match="LazyFrame"):
        validate(BARS, frame.lazy())
    with pytest.raises(ContractError, match="out of order"):
        validate(BARS, frame.select(reversed(frame.columns)))
    with pytest.raises(ContractError, match="open_time is Datetime"):
        validate(BARS, frame.with_columns(pl.col("open_time").dt.cast_time_unit("ms")))


def test_a_staging_frame_may_lack_named_columns(make_bars):
    frame = make_bars()
    staged = frame.drop("known_from")
    assert validate(BARS, staged, without=("known_from",)) is staged
    bare = frame.drop("known_from", "year", "timeframe")
    validate(BARS, bare, without=("known_from", "year", "timeframe"))
    with pytest.raises(ContractError, match="known_from is missing"):
        validate(BARS, staged)
    with pytest.raises(ContractError, match="must not have it yet"):
        validate(BARS, frame, without=("known_from",))
    with pytest.raises(ContractError, match="key_unique"):
        validate(BARS, pl.concat([staged, staged]), without=("known_from",))
    # The key of revisions holds known_from: without it nothing can be said of uniqueness.
    validate(BAR_REVISIONS, pl.concat([staged, staged]), without=("known_from",))


def test_other_tables_have_rules_of_their_own():
    start = datetime(2026, 3, 24, tzinfo=UTC)
    values = ("BTC-USDT-SPOT.BINANCE", "binance", "bars", "1m", start, start, "present", "rest",
              None, start)  # fmt: skip
    frame = pl.DataFrame([values], schema=LEDGER.schema, orient="row")
    with pytest.raises(ContractError) as caught:
        validate(LEDGER, frame)
    assert caught.value.failures == {"span_ordered": 1}
    sound = frame.with_columns(span_end=pl.col("span_end") + MINUTE)
    validate(LEDGER, sound)
    with pytest.raises(ContractError, match="state_known"):
        validate(LEDGER, sound.with_columns(state=pl.lit("perfect")))


def test_contracts_cannot_be_switched_off_from_outside(make_bars, monkeypatch):
    monkeypatch.setenv("PANDERA_VALIDATION_ENABLED", "False")
    monkeypatch.setenv("PANDERA_VALIDATION_DEPTH", "SCHEMA_ONLY")
    from pandera.config import config_context

    with (
        config_context(validation_enabled=False),
        pytest.raises(ContractError, match="price_positive"),
    ):
        validate(BARS, row(make_bars, low=0.0))


def test_importing_the_door_loads_no_pandera():
    code = "import sys, contracts.validate; sys.exit('pandera' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_uniqueness_of_keys_in_any_order(make_bars):
    two = pl.concat([make_bars(50), make_bars(50, instrument="ETH-USDT-SPOT.BINANCE")])
    key = BARS.key
    assert is_unique(two, key)
    assert is_unique(two.sort("open_time"), key)
    assert is_unique(two.reverse(), key)
    assert is_unique(two.head(1), key)
    assert not is_unique(pl.concat([two, two.tail(1)]), key)
    assert not is_unique(pl.concat([two, two.head(1)]), key)
    assert not is_unique(pl.concat([two.head(1), two.head(1)]), key)
    apart = pl.concat([two.head(20), two.slice(60, 20), two.head(20)])
    assert not is_unique(apart, key)


def test_a_constant_holds_one_value_and_no_null():
    assert is_constant(pl.Series(["a", "a"]))
    assert not is_constant(pl.Series(["a", "b"]))
    assert not is_constant(pl.Series(["a", None]))
    assert not is_constant(pl.Series([], dtype=pl.String))
