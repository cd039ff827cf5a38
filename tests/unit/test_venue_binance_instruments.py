"""Binance exchangeInfo: exact steps, our status words, a named error for every surprise."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from contracts.errors import PayloadError
from contracts.names import Venue
from contracts.response import Response
from contracts.tables import INSTRUMENTS
from flows.venues.binance import INSTRUMENT_COLUMNS, parse_instruments

NOW = datetime(2026, 4, 1, tzinfo=UTC)


def response_of(body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(Venue.BINANCE, "GET /api/v3/exchangeInfo", {}, NOW, NOW, 200, None, raw)


def price(tick):
    return {"filterType": "PRICE_FILTER", "minPrice": "0.01", "tickSize": tick}


def lot(step):
    return {"filterType": "LOT_SIZE", "stepSize": step}


def symbol_of(**changes):
    symbol = {
        "symbol": "BTCUSDT",
        "status": "TRADING",
        "baseAsset": "BTC",
        "quoteAsset": "USDT",
        "filters": [
            price("0.01000000"),
            lot("0.00001000"),
            {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.00000000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
        ],
        "permissions": [],
        "a field of tomorrow": {},
    }
    return symbol | changes


def frame_of(*symbols):
    return parse_instruments(response_of({"serverTime": 1, "symbols": list(symbols)}))


def test_a_symbol_becomes_a_row_of_the_contract():
    frame = frame_of(symbol_of())
    assert frame.columns == list(INSTRUMENT_COLUMNS)
    assert all(INSTRUMENTS.schema[name] == dtype for name, dtype in frame.schema.items())
    assert frame.row(0, named=True) == {
        "canonical_id": "BTC-USDT-SPOT",
        "market_type": "spot",
        "venue_symbol": "BTCUSDT",
        "base": "BTC",
        "quote": "USDT",
        "settle": None,
        "tick_size": Decimal("0.01"),
        "lot_size": Decimal("0.00001"),
        "min_notional": Decimal(5),
        "contract_size": Decimal(1),
        "status": "trading",
        "venue_status": "TRADING",
        "listed_at": None,
        "expiry": None,
        "funding_interval_hours": None,
    }


def test_steps_keep_every_digit():
    text = "12345678901234567890.123456789012345678"
    frame = frame_of(symbol_of(filters=[price(text), lot("0.000000000000000001")]))
    assert frame["tick_size"][0] == Decimal(text)
    assert frame["lot_size"][0] == Decimal("1E-18")


@pytest.mark.parametrize(
    "filters",
    [
        None,
        [],
        [{"filterType": "PRICE_FILTER"}],
        [price(None), lot(None), {"filterType": "NOTIONAL", "minNotional": None}],
        [price("0.00000000"), lot("0.0")],
        [{"filterType": "A_FILTER_OF_TOMORROW", "tickSize": {}}],
    ],
)
def test_what_is_not_stated_or_switched_off_is_null(filters):
    frame = frame_of(symbol_of(filters=filters))
    assert frame.select("tick_size", "lot_size", "min_notional").row(0) == (None, None, None)


def test_the_older_filter_name_of_the_notional_is_known():
    older = {"filterType": "MIN_NOTIONAL", "minNotional": "10.00000000"}
    assert frame_of(symbol_of(filters=[older]))["min_notional"][0] == 10


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("TRADING", "trading"),
        ("BREAK", "halted"),
        ("HALT", "halted"),
        ("END_OF_DAY", "halted"),
        ("CANCEL_ONLY", "halted"),
        ("PRE_TRADING", "pending"),
        ("SOMETHING_NEW", "unknown"),
    ],
)
def test_the_word_of_the_venue_is_kept_beside_ours(word, status):
    assert frame_of(symbol_of(status=word)).select("status", "venue_status").row(0) == (
        status,
        word,
    )


def test_no_symbols_are_an_empty_frame():
    frame = frame_of()
    assert frame.height == 0
    assert frame.columns == list(INSTRUMENT_COLUMNS)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<html>", "HTML instead of JSON"),
        ([], "no list of symbols"),
        ({"symbols": None}, "no list of symbols"),
        ({"symbols": ["BTCUSDT"]}, "symbol 0 is 'BTCUSDT', not an object"),
        ({"symbols": [symbol_of(), symbol_of()]}, "symbol BTCUSDT listed twice"),
        ({"symbols": [symbol_of(status=None)]}, "symbol 0, status: None is no name"),
        ({"symbols": [symbol_of(symbol="")]}, "symbol 0, symbol: '' is no name"),
        ({"symbols": [symbol_of(baseAsset="B TC")]}, "symbol 0, BTCUSDT"),
        ({"symbols": [symbol_of(filters={})]}, "BTCUSDT, filters: {} is no list"),
        ({"symbols": [symbol_of(filters=[None])]}, "is no list"),
        ({"symbols": [symbol_of(filters=[price(0.01)])]}, "PRICE_FILTER.tickSize: 0.01"),
        ({"symbols": [symbol_of(filters=[price("one")])]}, "'one' is no amount"),
        ({"symbols": [symbol_of(filters=[price("NaN")])]}, "'NaN' is no amount"),
        ({"symbols": [symbol_of(filters=[lot("-1")])]}, "LOT_SIZE.stepSize: '-1' is no amount"),
        ({"symbols": [symbol_of(filters=[price("1e-19")])]}, "more digits than we can keep"),
        ({"symbols": [symbol_of(filters=[price("1e21")])]}, "more digits than we can keep"),
    ],
)
def test_any_other_shape_is_told_with_its_place(body, what):
    with pytest.raises(PayloadError) as caught:
        parse_instruments(response_of(body))
    assert what in str(caught.value)


def test_recorded_documentation_answers(recorded):
    folder = recorded / "fixtures/nautilus"
    first = (folder / "binance_py/http_spot_market_exchange_info.json").read_bytes()
    frame = parse_instruments(response_of(first))
    steps = frame.select("venue_symbol", "tick_size", "lot_size", "min_notional").rows()
    assert steps == [
        ("BTCUSDT", Decimal("0.01"), Decimal("0.00001"), Decimal(10)),
        ("ETHUSDT", Decimal("0.01"), Decimal("0.0001"), Decimal(10)),
    ]
    second = (folder / "binance/exchange_info_response.json").read_bytes()
    frame = parse_instruments(response_of(second))
    assert frame["canonical_id"].to_list() == ["ETH-BTC-SPOT"]
    assert frame.select(pl.col("tick_size", "lot_size").is_null()).row(0) == (True, True)
