"""Binance spot: facts, requests, parsers.

====================  ==================================================================
bars                  ``/api/v3/klines``: ascending; ``startTime`` and ``endTime`` are
                      inclusive on the open time; at most 1000 rows, asked for or not
a bar                 12 elements, numbers as strings; the close time is the open time +
                      timeframe - 1 of the unit, or earlier for a bar that a halt cut
                      short; milliseconds, or microseconds
no trades             a flat row of zero volume; a row is missing when the venue was down
the running bar       comes as the last row, unflagged
instruments           ``/api/v3/exchangeInfo``: no listing time; a delisted symbol stays
                      as BREAK for a while, then vanishes; ``permissions`` may be empty
budget                6000 weight per minute and address, in fixed minutes of the venue's
                      clock; each answer states the weight used in ``X-MBX-USED-WEIGHT-1M``
symbols               BASE and QUOTE joined, capitals; split only by ``exchangeInfo``
not offered           funding, open interest, liquidations: there are none on spot
====================  ==================================================================

Source: binance/binance-spot-api-docs, rest-api.md, errors.md, enums.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import InvalidNameError, InvalidSpanError, UnsupportedByVenueError
from contracts.names import CanonicalId, MarketType, Timeframe, Venue
from contracts.spec import Time
from contracts.tables import BARS, INSTRUMENTS
from contracts.time import Span, from_micros, from_millis, to_micros
from flows.venues.base import AskedBars, Call
from flows.venues.binance_pages import parse_plain_pages, plain_rows
from flows.venues.limiter import Budget
from flows.venues.payload import (
    SCALAR,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    WHOLE_OR_NULL,
    Cell,
    check_int64,
    columns_of,
    decode_json,
    floats,
    shown,
    unknown_shape,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from contracts.response import Response
    from flows.venues.client import VenueClient

CCXT_NAME = "binance"
BUDGET = Budget(weight=6000, window_seconds=60)
USED_WEIGHT_HEADER = "x-mbx-used-weight-1m"
MIRRORS = (
    "https://data-api.binance.vision",
    "https://api-gcp.binance.com",
    "https://api1.binance.com",
    "https://api2.binance.com",
    "https://api3.binance.com",
    "https://api4.binance.com",
)
PAGE_BARS = 1000
TIMEFRAMES = frozenset(("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"))
WEIGHTS = {"time": 1, "klines": 2, "exchangeInfo": 20}
STATUSES = {
    "TRADING": "trading",
    "PRE_TRADING": "pending",
    "PENDING_TRADING": "pending",
    "POST_TRADING": "halted",
    "AUCTION_MATCH": "halted",
    "END_OF_DAY": "halted",
    "HALT": "halted",
    "BREAK": "halted",
    "CANCEL_ONLY": "halted",
}
KLINE = (
    Cell("open_time", WHOLE),
    Cell("open", TEXT),
    Cell("high", TEXT),
    Cell("low", TEXT),
    Cell("close", TEXT),
    Cell("volume", TEXT),
    Cell("close_time", WHOLE),
    Cell("quote_volume", TEXT_OR_NULL),
    Cell("trade_count", WHOLE_OR_NULL),
    Cell("taker_buy_volume", TEXT_OR_NULL),
    Cell("taker_buy_quote_volume", TEXT_OR_NULL),
    Cell("ignored", SCALAR),
)
BAR_SCHEMA = {
    name: BARS.schema[name]
    for name in (
        "open_time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "trade_count",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    )
}
INSTRUMENT_COLUMNS = (
    "canonical_id",
    "market_type",
    "venue_symbol",
    "base",
    "quote",
    "settle",
    "tick_size",
    "lot_size",
    "min_notional",
    "contract_size",
    "status",
    "venue_status",
    "listed_at",
    "expiry",
    "funding_interval_hours",
)

_MILLISECOND = timedelta(milliseconds=1)
_MILLIS_FROM, _MICROS_FROM, _MICROS_TO = 10**11, 10**14, 10**17
_STEP_DIGITS = 18


class BinanceSpot:
    """The adapter; see ``VenueAdapter``."""

    venue = Venue.BINANCE
    market_type = MarketType.SPOT
    bars_endpoint = "GET /api/v3/klines"
    page_bars = PAGE_BARS
    timeframes = TIMEFRAMES

    def __init__(self, client: VenueClient) -> None:
        self._client = client

    async def server_time(self) -> datetime:
        """Return the venue's clock."""
        call = Call(
            "GET /api/v3/time", "publicGetTime", WEIGHTS["time"], parse_server_time, is_data=False
        )
        return parse_server_time(await self._client.get(call))

    async def fetch_instruments(self) -> Response:
        """Return the list of instruments."""
        weight = WEIGHTS["exchangeInfo"]
        call = Call("GET /api/v3/exchangeInfo", "publicGetExchangeInfo", weight, parse_instruments)
        return await self._client.get(call)

    async def fetch_bars(self, venue_symbol: str, timeframe: Timeframe, span: Span) -> Response:
        """Return all bars that open in the span."""
        bars = timeframe.bars_of(span)
        if bars is not None and (bars.end - bars.start) // timeframe.duration > PAGE_BARS:
            raise InvalidSpanError(
                f"{span} holds more than {PAGE_BARS} bars of {timeframe}",
                remedy=f"Ask for at most {PAGE_BARS} bars at a time",
                venue=self.venue.value,
                symbol=venue_symbol,
            )
        bounds = {"startTime": _millis_up(span.start), "endTime": _millis_up(span.end) - 1}
        return await self._klines(venue_symbol, timeframe, bounds | {"limit": PAGE_BARS})

    async def fetch_first_bar(
        self, venue_symbol: str, timeframe: Timeframe, at_or_after: datetime
    ) -> Response:
        """Return a page of at most one bar: the first that opens at or after the time."""
        bounds = {"startTime": _millis_up(at_or_after), "limit": 1}
        return await self._klines(venue_symbol, timeframe, bounds)

    async def fetch_newest_bar(self, venue_symbol: str, timeframe: Timeframe) -> Response:
        """Return a page of at most one bar: the newest, which may still be open."""
        return await self._klines(venue_symbol, timeframe, {"limit": 1})

    async def _klines(
        self, venue_symbol: str, timeframe: Timeframe, bounds: dict[str, int]
    ) -> Response:
        self.check_timeframe(timeframe)
        params: dict[str, str | int] = {
            "symbol": venue_symbol,
            "interval": timeframe.code,
            **bounds,
        }
        call = Call(
            self.bars_endpoint,
            "publicGetKlines",
            WEIGHTS["klines"],
            check_page,
            params,
            venue_symbol,
        )
        return await self._client.get(call)

    def parse_instruments(self, response: Response) -> pl.DataFrame:
        """Return one row per instrument, in the order given."""
        return parse_instruments(response)

    def parse_bars(self, response: Response) -> pl.DataFrame:
        """Return the bars in the order given."""
        return parse_bars(response)

    def parse_bars_many(self, responses: Sequence[Response]) -> pl.DataFrame:
        """Return the bars of many pages; column ``page`` is the place in ``responses``."""
        return parse_bars_many(responses)

    def asked_bars(self, params: Mapping[str, str | int]) -> AskedBars | None:
        """Return what a landed request for bars asked; None unless it asked for a whole span."""
        if "startTime" not in params or "endTime" not in params:
            return None
        span = Span(from_millis(int(params["startTime"])), from_millis(int(params["endTime"]) + 1))
        return AskedBars(str(params["symbol"]), Timeframe.parse(str(params["interval"])), span)

    def check_timeframe(self, timeframe: Timeframe) -> None:
        """Raise ``UnsupportedByVenueError`` unless the venue offers the timeframe."""
        if timeframe.code not in TIMEFRAMES:
            offered = ", ".join(str(known) for known in Timeframe.all() if known.code in TIMEFRAMES)
            raise UnsupportedByVenueError(
                f"binance offers no bars of {timeframe}",
                remedy=f"Choose one of {offered}",
                venue=self.venue.value,
                timeframe=timeframe.code,
            )


def _millis_up(moment: datetime) -> int:
    """Milliseconds, rounded up: bounds must not reach below the moment."""
    return -(-to_micros(moment) // 1000)


def parse_server_time(response: Response) -> datetime:
    """Return the time in an answer of ``/api/v3/time``."""
    body = decode_json(response)
    stated = body.get("serverTime") if isinstance(body, dict) else None
    if type(stated) is not int:
        raise unknown_shape(response, f"no serverTime in {shown(body)}")
    return from_micros(stated * _micros_per_unit(response, [stated]))


def _micros_per_unit(response: Response, times: Sequence[int]) -> int:
    """Tell milliseconds from microseconds by magnitude; a page never mixes them."""
    low, high = min(times), max(times)
    if low >= _MILLIS_FROM and high < _MICROS_FROM:
        return 1000
    if low >= _MICROS_FROM and high < _MICROS_TO:
        return 1
    if _MILLIS_FROM <= low < _MICROS_FROM <= high < _MICROS_TO:
        raise unknown_shape(response, "milliseconds and microseconds mixed in one page")
    wrong = low if not _MILLIS_FROM <= low < _MICROS_TO else high
    raise unknown_shape(response, f"the time {shown(wrong)}, neither milliseconds nor microseconds")


def check_page(response: Response) -> None:
    """Refuse an answer that is no page; one in the common form is read when it is parsed."""
    if plain_rows(response.body) is None:
        parse_bars(response)


def parse_bars(response: Response) -> pl.DataFrame:
    """Return the bars of one page, in the order given."""
    page = _page(response)

    def number(name: str) -> pl.Series:
        return floats(response, name, page[name])

    return pl.DataFrame(
        [
            pl.Series("open_time", page["open_time"], dtype=pl.Int64).cast(Time),
            *map(number, ("open", "high", "low", "close", "volume", "quote_volume")),
            pl.Series("trade_count", page["trade_count"], dtype=pl.Int64),
            *map(number, ("taker_buy_volume", "taker_buy_quote_volume")),
        ]
    )


def parse_bars_many(responses: Sequence[Response]) -> pl.DataFrame:
    """Return the bars of many pages in the order given, with the ``page`` of each."""
    if not responses:
        return pl.DataFrame(schema={"page": pl.UInt32, **BAR_SCHEMA})
    plain = parse_plain_pages(responses)
    if plain is not None:
        return plain
    frames = [
        parse_bars(response).select(_place(at), pl.all()) for at, response in enumerate(responses)
    ]
    return pl.concat(frames)


def _place(at: int) -> pl.Expr:
    return pl.lit(at, dtype=pl.UInt32).alias("page")


def _page(response: Response) -> dict[str, Sequence[Any]]:
    """Return the columns of a page by name; times in microseconds, checked."""
    rows = columns_of(response, decode_json(response), KLINE)
    page: dict[str, Sequence[Any]] = {
        cell.name: column for cell, column in zip(KLINE, rows, strict=True)
    }
    opens, closes = page["open_time"], page["close_time"]
    if not opens:
        return page
    scale = _micros_per_unit(response, opens)
    timeframe = Timeframe.parse(str(response.params["interval"]))
    last = timeframe.micros // scale - 1
    _check_closes(response, timeframe, opens, closes, last)
    check_int64(response, "trade_count", page["trade_count"])
    if scale != 1:
        page["open_time"] = [opened * scale for opened in opens]
    return page


def _check_closes(
    response: Response,
    timeframe: Timeframe,
    opens: Sequence[int],
    closes: Sequence[int],
    last: int,
) -> None:
    """Refuse a page of another timeframe; a halt may have cut single bars short."""
    unit = timeframe.micros // (last + 1)
    others = {each.micros // unit - 1 for each in Timeframe.all() if each != timeframe}
    for at, (opened, closed) in enumerate(zip(opens, closes, strict=True)):
        if not opened < closed <= opened + last or closed - opened in others:
            what = f"row {at}, close_time: {shown(closed)} is not open_time + {timeframe} - 1"
            raise unknown_shape(response, f"{what} = {opened + last}")


@dataclass(slots=True)
class _Rules:
    """The filters of one symbol that we keep."""

    tick_size: Decimal | None = None
    lot_size: Decimal | None = None
    min_notional: Decimal | None = None


def parse_instruments(response: Response) -> pl.DataFrame:
    """Return one row per symbol of an ``exchangeInfo`` answer, in the order given."""
    body = decode_json(response)
    symbols = body.get("symbols") if isinstance(body, dict) else None
    if not isinstance(symbols, list):
        raise unknown_shape(response, f"no list of symbols in {shown(body)}")
    rows = [_instrument(response, at, symbol) for at, symbol in enumerate(symbols)]
    names = [row[INSTRUMENT_COLUMNS.index("venue_symbol")] for row in rows]
    if len(set(names)) != len(names):
        doubled = next(name for at, name in enumerate(names) if name in names[:at])
        raise unknown_shape(response, f"symbol {doubled} listed twice")
    schema = {name: INSTRUMENTS.schema[name] for name in INSTRUMENT_COLUMNS}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _instrument(response: Response, at: int, symbol: Any) -> tuple[Any, ...]:
    if not isinstance(symbol, dict):
        raise unknown_shape(response, f"symbol {at} is {shown(symbol)}, not an object")
    texts = [symbol.get(name) for name in ("symbol", "status", "baseAsset", "quoteAsset")]
    for name, value in zip(("symbol", "status", "baseAsset", "quoteAsset"), texts, strict=True):
        if not isinstance(value, str) or not value:
            raise unknown_shape(response, f"symbol {at}, {name}: {shown(value)} is no name")
    venue_symbol, status, base, quote = (str(text) for text in texts)
    try:
        canonical_id = str(CanonicalId(base, quote, MarketType.SPOT))
    except InvalidNameError as error:
        raise unknown_shape(response, f"symbol {at}, {venue_symbol}: {error.message}") from None
    rules = _rules(response, venue_symbol, symbol.get("filters"))
    return (
        canonical_id,
        MarketType.SPOT.value,
        venue_symbol,
        base,
        quote,
        None,
        rules.tick_size,
        rules.lot_size,
        rules.min_notional,
        Decimal(1),
        STATUSES.get(status, "unknown"),
        status,
        None,
        None,
        None,
    )


def _rules(response: Response, venue_symbol: str, filters: Any) -> _Rules:
    """Return the steps; a step of zero switches its filter off, so it is null."""
    rules = _Rules()
    if filters is None:
        return rules
    if not isinstance(filters, list) or not all(isinstance(one, dict) for one in filters):
        raise unknown_shape(response, f"{venue_symbol}, filters: {shown(filters)} is no list")
    for one in filters:
        kind = one.get("filterType")

        def read(name: str, one: dict[str, Any] = one, kind: Any = kind) -> Decimal | None:
            place = f"{venue_symbol}, {kind}.{name}"
            return _decimal(response, place, one.get(name))

        if kind == "PRICE_FILTER":
            rules.tick_size = read("tickSize") or None
        elif kind == "LOT_SIZE":
            rules.lot_size = read("stepSize") or None
        elif kind in ("MIN_NOTIONAL", "NOTIONAL"):
            rules.min_notional = read("minNotional")
    return rules


def _decimal(response: Response, place: str, text: Any) -> Decimal | None:
    if text is None:
        return None
    try:
        value = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value < 0:
        raise unknown_shape(response, f"{place}: {shown(text)} is no amount")
    digits = value.normalize().as_tuple()
    exponent = int(digits.exponent)
    if -exponent > _STEP_DIGITS or len(digits.digits) + exponent > 38 - _STEP_DIGITS:
        raise unknown_shape(response, f"{place}: {shown(text)} has more digits than we can keep")
    return value
