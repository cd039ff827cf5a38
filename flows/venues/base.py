"""What every venue adapter offers, and the words shared between its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from contracts.response import Response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import polars as pl

    from contracts.names import MarketType, Timeframe, Venue
    from contracts.time import Span

OnFailedResponse = Callable[[Response], None]
OnWait = Callable[[str, float], None]


class VenueAdapter(Protocol):
    """One venue: requests that return the answer verbatim, and parsers of such answers.

    Every ``fetch`` waits for the venue's limits, retries what can be retried, and returns
    an answer whose shape was checked. Every ``parse`` is pure: a stored answer parses
    like a fresh one.

    Attributes:
        venue: Which venue.
        market_type: What kind of instruments it lists here.
        bars_endpoint: The endpoint of bars, as it is landed.
        page_bars: Bars that the venue gives per page at most.
        timeframes: Codes of the timeframes that it offers.
    """

    venue: Venue
    market_type: MarketType
    bars_endpoint: str
    page_bars: int
    timeframes: frozenset[str]

    async def server_time(self) -> datetime:
        """Return the venue's clock."""

    async def fetch_instruments(self) -> Response:
        """Return the list of instruments."""

    async def fetch_bars(self, venue_symbol: str, timeframe: Timeframe, span: Span) -> Response:
        """Return all bars that open in the span.

        Raises:
            InvalidSpanError: More than ``page_bars`` bars open in the span.
            UnsupportedByVenueError: The venue offers no such timeframe.
            UnknownSymbolError: The venue lists no such symbol.
        """

    async def fetch_first_bar(
        self, venue_symbol: str, timeframe: Timeframe, at_or_after: datetime
    ) -> Response:
        """Return a page of at most one bar: the first that opens at or after the time."""

    async def fetch_newest_bar(self, venue_symbol: str, timeframe: Timeframe) -> Response:
        """Return a page of at most one bar: the newest, which may still be open."""

    def parse_instruments(self, response: Response) -> pl.DataFrame:
        """Return one row per instrument, in the order given.

        Shape: canonical_id, market_type, venue_symbol, base, quote, settle, tick_size,
        lot_size, min_notional, contract_size, status, venue_status, listed_at, expiry,
        funding_interval_hours, typed as in ``contracts.tables.INSTRUMENTS``.

        Raises:
            PayloadError: The answer has a shape we do not know.
        """

    def parse_bars(self, response: Response) -> pl.DataFrame:
        """Return the bars in the order given; an empty list is an empty frame.

        Shape: open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume; nulls as the venue sent them.

        Raises:
            PayloadError: The answer has a shape we do not know.
        """

    def parse_bars_many(self, responses: Sequence[Response]) -> pl.DataFrame:
        """Return the bars of many pages; column ``page`` is the place in ``responses``."""

    def asked_bars(self, params: Mapping[str, str | int]) -> AskedBars | None:
        """Return what a landed request for bars asked; None unless it asked for a whole span."""

    def check_timeframe(self, timeframe: Timeframe) -> None:
        """Raise ``UnsupportedByVenueError`` unless the venue offers the timeframe."""


@dataclass(frozen=True, slots=True)
class AskedBars:
    """What a request for bars asked."""

    venue_symbol: str
    timeframe: Timeframe
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a venue.

    Attributes:
        endpoint: Method and path, as stored with the response.
        method: Name of ccxt's raw endpoint method.
        weight: What it costs of the venue's budget.
        params: Query parameters.
        symbol: The venue symbol asked for, if any; errors name it.
        is_data: Whether failed answers are worth keeping.
        check: Raises ``PayloadError`` when the answer is not of the expected shape.
    """

    endpoint: str
    method: str
    weight: int
    check: Callable[[Response], object]
    params: Mapping[str, str | int] = field(default_factory=dict)
    symbol: str | None = None
    is_data: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back over the wire, whatever the status.

    Attributes:
        status: HTTP status.
        headers: Headers with names in lower case.
        body: The bytes of the body, content encoding undone.
        cut: Why the body ended before its end, or None when it is whole.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    cut: str | None = None
