import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from contracts.errors import ContractError
from contracts.names import Timeframe
from contracts.tables import AUDITS, BARS, QUARANTINE
from contracts.time import Span
from contracts.validate import validate
from quality.bars import audit_bars
from quality.breaker import Breaker
from quality.quarantine import audit_rows, quarantine_rows

START = datetime(2026, 3, 24, tzinfo=UTC)
NOW = datetime(2026, 4, 1, tzinfo=UTC)
ASKED = Span(START, START + timedelta(hours=1))


def verdict_of(frame):
    return audit_bars(frame, asked=ASKED, timeframe=Timeframe.parse("1m"))


@pytest.fixture
def verdict(make_bars):
    frame = make_bars().drop("known_from")
    broken = pl.when(pl.int_range(pl.len()) < 2)
    nan = broken.then(float("nan")).otherwise("high").alias("high")
    return verdict_of(frame.with_columns(nan, broken.then(-1).otherwise("trade_count").alias(
        "trade_count")))  # fmt: skip


def quarantined(bad, run_id="run-1", known_from=NOW):
    return quarantine_rows(bad, table=BARS, run_id=run_id, known_from=known_from)


def test_refused_rows_keep_their_values_and_reasons(verdict):
    rows = validate(QUARANTINE, quarantined(verdict.bad))
    assert rows.height == 2
    first = rows.row(0, named=True)
    assert first["reasons"] == ["price_positive", "trade_count_sound"]
    assert first["event_time"] == START
    assert (first["timeframe"], first["source"], first["run_id"]) == ("1m", "rest", "run-1")
    content = json.loads(first["row"])
    assert content["high"] == "nan"
    assert content["open_time"] == "2026-03-24T00:00:00Z"
    assert content["trade_count"] == -1
    assert set(content) == set(BARS.schema) - {"known_from"}


def test_the_id_does_not_depend_on_run_or_time_or_order(verdict):
    ids = quarantined(verdict.bad)["quarantine_id"]
    later = quarantined(verdict.bad.reverse(), "run-2", NOW + timedelta(days=1))
    assert later["quarantine_id"].equals(ids)
    assert ids.n_unique() == 2
    assert ids.str.len_bytes().unique().to_list() == [64]


def test_the_id_depends_on_table_key_values_and_source(verdict):
    one = verdict.bad.head(1)
    variants = [
        one,
        one.with_columns(volume=pl.lit(1.0)),
        one.with_columns(source=pl.lit("archive")),
        one.with_columns(instrument_id=pl.lit("ETH-USDT-SPOT.BINANCE")),
    ]
    ids = {quarantined(frame)["quarantine_id"].item() for frame in variants}
    assert len(ids) == 4
    lagging = one.with_columns(pl.col("available_at") + timedelta(seconds=1))
    assert quarantined(lagging)["quarantine_id"].item() in ids


def test_rows_with_equal_ids_become_one(verdict):
    assert quarantined(pl.concat([verdict.bad, verdict.bad])).height == 2


def test_an_unreadable_time_is_null(make_bars):
    frame = make_bars(1).drop("known_from").with_columns(open_time=pl.lit(None, BARS.schema[
        "open_time"]))  # fmt: skip
    rows = quarantined(verdict_of(frame).bad)
    assert rows["event_time"].to_list() == [None]
    validate(QUARANTINE, rows)


def test_a_frame_of_another_schema_keeps_its_rows_apart(make_bars):
    bad = verdict_of(make_bars(3).drop("known_from", "open_time")).bad
    rows = validate(QUARANTINE, quarantined(bad))
    assert rows.height == 3
    assert rows["reasons"].to_list() == [["schema"]] * 3


def test_every_type_of_a_foreign_frame_can_be_kept():
    bad = pl.DataFrame(
        {
            "venue": ["okx"], "instrument_id": ["BTC-USDT-SPOT.OKX"], "day": [START.date()],
            "naive": [START.replace(tzinfo=None)], "step": [Decimal("0.10")],
            "nested": [[{"a": float("inf")}]], "reasons": [["schema"]],
        }
    )  # fmt: skip
    content = json.loads(quarantined(bad)["row"].item())
    assert content == {
        "venue": "okx", "instrument_id": "BTC-USDT-SPOT.OKX", "day": "2026-03-24",
        "naive": "2026-03-24T00:00:00", "step": "0.10", "nested": [{"a": "inf"}],
    }  # fmt: skip


def test_no_rows_give_an_empty_frame(verdict):
    assert quarantined(verdict.bad.clear()).schema == QUARANTINE.schema


@pytest.mark.parametrize("name", ["venue", "instrument_id"])
def test_a_row_without_its_stream_is_refused(verdict, name):
    with pytest.raises(ContractError, match=f"no {name}"):
        quarantined(verdict.bad.with_columns(pl.lit(None, pl.String).alias(name)))
    with pytest.raises(ContractError, match=f"no {name}"):
        quarantined(verdict.bad.drop(name))


STREAM = {
    "table": BARS, "venue": "binance", "instrument_id": "BTC-USDT-SPOT.BINANCE",
    "timeframe": "1m", "span": ASKED, "run_id": "run-1", "known_from": NOW,
}  # fmt: skip


def words(frame):
    return dict(frame.select("audit", "verdict").iter_rows())


def test_every_failed_audit_is_a_row_and_those_that_passed_share_one(verdict):
    rows = validate(AUDITS, audit_rows(verdict, **STREAM))
    passed = rows.filter(pl.col("verdict") == "passed")
    named = set(passed["detail"].item().split(", "))
    failed = rows.filter(pl.col("verdict") != "passed")
    assert named | set(failed["audit"]) == {result.audit for result in verdict.results}
    assert set(failed["audit"]) == {"price_positive", "trade_count_sound"}
    assert failed["bad_rows"].to_list() == [2, 2]
    assert failed["detail"].null_count() == 0
    assert rows["audit_id"].n_unique() == rows.height
    again = audit_rows(verdict, **STREAM | {"known_from": NOW + timedelta(days=1)})
    assert again["audit_id"].equals(rows["audit_id"])
    other = audit_rows(verdict, **STREAM | {"run_id": "run-2"})
    assert not set(other["audit_id"]) & set(rows["audit_id"])


def test_a_trip_and_a_release_are_told_apart(make_bars):
    shifted = verdict_of(make_bars(2, start=START - timedelta(minutes=1)).drop("known_from"))
    reason = Breaker().trips(shifted)
    tripped = audit_rows(shifted, **STREAM, tripped=reason)
    assert words(tripped)["outside_asked"] == words(tripped)["breaker"] == "tripped"
    assert tripped.filter(pl.col("audit") == "breaker")["detail"].item() == reason
    released = validate(AUDITS, audit_rows(shifted, **STREAM, tripped=reason, released=True))
    assert words(released)["outside_asked"] == words(released)["breaker"] == "released"
    assert "on_grid" in released.filter(pl.col("audit") == "passed")["detail"].item()
