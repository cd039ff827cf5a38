from datetime import date, timedelta

import pytest

from contracts.errors import InvalidNameError, UnknownTimeframeError, UnknownVenueError
from contracts.names import CanonicalId, InstrumentId, MarketType, Timeframe, Venue, suggest
from contracts.time import Span, parse_time


@pytest.mark.parametrize(
    ("text", "canonical", "ccxt"),
    [
        ("BTC/USDT", "BTC-USDT-SPOT", "BTC/USDT"),
        ("BTC/USDT:USDT", "BTC-USDT-PERP", "BTC/USDT:USDT"),
        ("BTC/USD:BTC", "BTC-USD:BTC-PERP", "BTC/USD:BTC"),
        ("BTC/USD:BTC-240329", "BTC-USD:BTC-FUT-20240329", "BTC/USD:BTC-240329"),
        (
            "BTC-USD:BTC-OPT-20240329-60000-C",
            "BTC-USD:BTC-OPT-20240329-60000-C",
            "BTC/USD:BTC-240329-60000-C",
        ),
        ("1000SATS-USDT-SPOT", "1000SATS-USDT-SPOT", "1000SATS/USDT"),
    ],
)
def test_both_forms_name_the_same_instrument(text, canonical, ccxt):
    found = CanonicalId.parse(text)
    assert (str(found), found.ccxt) == (canonical, ccxt)
    assert CanonicalId.parse(canonical) == CanonicalId.parse(ccxt) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "BTC", "BTCUSDT", "BTC-USDT", "BTC-USDT-SWAP", "BTC/USDT-240329",
        "BTC-USDT-FUT", "BTC-USDT-FUT-20241399", "BTC-USDT:BTC-SPOT", "BTC-USDT-SPOT-20240329",
        "BTC-USDT-PERP-60000-C", "B*C-USDT-SPOT",
    ],
)  # fmt: skip
def test_what_names_nothing_is_refused(text):
    with pytest.raises(InvalidNameError, match="names no instrument"):
        CanonicalId.parse(text)


def test_a_constructed_name_is_held_to_the_same_rules():
    with pytest.raises(InvalidNameError, match="expiry"):
        CanonicalId("BTC", "USDT", MarketType.FUTURE)
    with pytest.raises(InvalidNameError, match="strike"):
        CanonicalId("BTC", "USDT", MarketType.OPTION, expiry=date(2024, 3, 29))


def test_an_instrument_id_counts_listings_from_the_second():
    luna = InstrumentId.parse("LUNA-USDT-SPOT.OKX~2")
    assert (luna.venue, luna.listing) == (Venue.OKX, 2)
    assert str(CanonicalId.parse("LUNA/USDT").at(Venue.OKX)) == "LUNA-USDT-SPOT.OKX"


@pytest.mark.parametrize(
    "text",
    ["BTC-USDT-SPOT", "BTC-USDT-SPOT.binance", "BTC-USDT-SPOT.OKX~1", "BTC-USDT-SPOT.OKX~02",
     "BTC-USDT-SPOT.OKX~", "BTC/USDT.OKX"],
)  # fmt: skip
def test_other_spellings_of_an_instrument_id_are_refused(text):
    with pytest.raises(InvalidNameError):
        InstrumentId.parse(text)


def test_an_unknown_venue_is_told_the_nearest():
    assert Venue.parse(" Binance ") is Venue.BINANCE
    with pytest.raises(UnknownVenueError, match="Did you mean binance"):
        Venue.parse("binanse")
    with pytest.raises(UnknownVenueError):
        InstrumentId.parse("BTC-USDT-SPOT.NOWHERE")


def test_timeframes_know_their_grid():
    hour = Timeframe.parse("1h")
    moment = parse_time("2026-04-01T10:59:00")
    assert str(hour) == "1h"
    assert hour.micros == 3_600_000_000
    assert hour.floor(moment) == parse_time("2026-04-01T10:00")
    assert hour.ceil(moment) == hour.ceil(parse_time("2026-04-01T11:00"))
    assert [frame.code for frame in Timeframe.all()][:2] == ["1m", "3m"]
    with pytest.raises(UnknownTimeframeError, match="Did you mean"):
        Timeframe.parse("1min")


def test_bars_of_a_span_are_those_that_open_in_it():
    hour = Timeframe.parse("1h")
    span = Span.parse("2026-04-01T00:30", "2026-04-01T02:30")
    assert hour.bars_of(span) == Span.parse("2026-04-01T01:00", "2026-04-01T03:00")
    start = parse_time("2026-04-01T00:10")
    assert hour.bars_of(Span(start, start + timedelta(minutes=20))) is None


def test_suggest_offers_the_near_or_the_first():
    assert suggest("x", []) == "Known: none"
    assert suggest("barz", ["bars", "runs"]) == "Did you mean bars?"
    assert suggest("zzz", [f"name{n}" for n in range(14)]).endswith("and 2 more")
