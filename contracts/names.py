"""Names: venues, market types, timeframes, canonical ids and instrument ids.

Forms, each with ``parse`` and ``str`` that undo one another:

=================  ==========================================================
canonical_id       ``BTC-USDT-SPOT`` ``BTC-USDT-PERP`` ``BTC-USD:BTC-PERP``
                   ``BTC-USD:BTC-FUT-20240329`` ``BTC-USD:BTC-OPT-20240329-60000-C``
instrument_id      ``BTC-USDT-SPOT.BINANCE``, a second listing under the same
                   name ``LUNA-USDT-SPOT.OKX~2``
ccxt symbol        ``BTC/USDT`` ``BTC/USDT:USDT`` ``BTC/USD:BTC-240329``
                   ``BTC/USD:BTC-240329-60000-C``; read, never stored
=================  ==========================================================

A perpetual or dated contract that settles in its quote leaves the settle asset out.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from contracts.errors import InvalidNameError, UnknownTimeframeError, UnknownVenueError
from contracts.time import EPOCH, Span

if TYPE_CHECKING:
    from collections.abc import Iterable

_ASSET = r"[^\s\-:/~*?\[\].=%#]+(?:\.[^\s\-:/~*?\[\].=%#]+)*"
_CANONICAL = re.compile(
    rf"(?P<base>{_ASSET})-(?P<quote>{_ASSET})(?::(?P<settle>{_ASSET}))?"
    r"-(?P<kind>SPOT|PERP|FUT|OPT)"
    r"(?:-(?P<expiry>\d{8}))?(?:-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP]))?"
)
_CCXT = re.compile(
    rf"(?P<base>{_ASSET})/(?P<quote>{_ASSET})(?::(?P<settle>{_ASSET}))?"
    r"(?:-(?P<expiry>\d{6}))?(?:-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP]))?"
)


class Venue(StrEnum):
    """Where an instrument trades, or who publishes a series."""

    BINANCE = "binance"
    OKX = "okx"
    BYBIT = "bybit"
    KRAKEN = "kraken"
    COINBASE = "coinbase"
    ALTERNATIVE_ME = "alternative_me"

    @classmethod
    def parse(cls, text: str) -> Venue:
        """Return the venue of that name, in any case.

        Raises:
            UnknownVenueError: No such venue; the nearest names are offered.
        """
        try:
            return cls(text.strip().lower())
        except ValueError:
            raise UnknownVenueError(
                f"{text!r} is not a venue", remedy=suggest(text, cls), venue=text
            ) from None


class MarketType(StrEnum):
    """What kind of contract an instrument is."""

    SPOT = "spot"
    PERP = "perp"
    FUTURE = "future"
    OPTION = "option"


_KIND_OF_MARKET = {
    MarketType.SPOT: "SPOT",
    MarketType.PERP: "PERP",
    MarketType.FUTURE: "FUT",
    MarketType.OPTION: "OPT",
}
_MARKET_OF_KIND = {kind: market for market, kind in _KIND_OF_MARKET.items()}


@dataclass(frozen=True, order=True, slots=True)
class Timeframe:
    """The fixed length of a bar.

    Example:
        >>> Timeframe.parse("1h").floor(datetime.fromisoformat("2026-04-01T10:59:00Z")).hour
        10
    """

    duration: timedelta
    code: str

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """Return the timeframe of that code.

        Raises:
            UnknownTimeframeError: No such timeframe; the nearest are offered.
        """
        try:
            return _timeframes()[text.strip()]
        except KeyError:
            raise UnknownTimeframeError(
                f"{text!r} is not a timeframe",
                remedy=suggest(text, _timeframes()),
                timeframe=text,
            ) from None

    @classmethod
    def all(cls) -> tuple[Timeframe, ...]:
        """Return every timeframe, shortest first."""
        return tuple(sorted(_timeframes().values()))

    @property
    def micros(self) -> int:
        """Length in microseconds."""
        return self.duration // timedelta(microseconds=1)

    def floor(self, moment: datetime) -> datetime:
        """Return the last grid time at or before ``moment``; the grid starts at 1970-01-01."""
        return EPOCH + (moment - EPOCH) // self.duration * self.duration

    def ceil(self, moment: datetime) -> datetime:
        """Return the first grid time at or after ``moment``."""
        floor = self.floor(moment)
        return floor if floor == moment else floor + self.duration

    def bars_of(self, span: Span) -> Span | None:
        """Return the span of the whole bars that open inside ``span``, or None.

        A bar belongs to the span in which it opens, so a span that ends inside a bar
        ends with that bar.
        """
        start, end = self.ceil(span.start), self.ceil(span.end)
        return Span(start, end) if start < end else None

    def __str__(self) -> str:
        return self.code


@cache
def _timeframes() -> dict[str, Timeframe]:
    minutes = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120}
    minutes |= {"4h": 240, "6h": 360, "8h": 480, "12h": 720, "1d": 1440}
    return {code: Timeframe(timedelta(minutes=count), code) for code, count in minutes.items()}


@dataclass(frozen=True, order=True, slots=True)
class CanonicalId:
    """The venue-free name of an instrument, with its true quote."""

    base: str
    quote: str
    market_type: MarketType
    settle: str | None = None
    expiry: date | None = None
    strike: str | None = None
    side: str | None = None

    def __post_init__(self) -> None:
        market = self.market_type
        for asset in (self.base, self.quote, self.settle):
            if asset is not None and not re.fullmatch(_ASSET, asset):
                raise _not_a_name(asset, "the asset holds a character that names cannot")
        if market is MarketType.SPOT and self.settle is not None:
            raise _not_a_name(str(self), "a spot instrument has no settle asset")
        if market is not MarketType.SPOT and self.settle is None:
            object.__setattr__(self, "settle", self.quote)
        if (market in (MarketType.FUTURE, MarketType.OPTION)) != (self.expiry is not None):
            raise _not_a_name(str(self), "dated contracts, and only they, have an expiry")
        optional = (self.strike is not None, self.side is not None)
        if optional != ((market is MarketType.OPTION),) * 2:
            raise _not_a_name(str(self), "options, and only they, have a strike and a side")

    @classmethod
    def parse(cls, text: str) -> CanonicalId:
        """Read a canonical id or a ccxt symbol.

        Raises:
            InvalidNameError: The text is neither.

        Example:
            >>> str(CanonicalId.parse("BTC/USDT:USDT"))
            'BTC-USDT-PERP'
            >>> str(CanonicalId.parse("BTC/USD:BTC-240329"))
            'BTC-USD:BTC-FUT-20240329'
        """
        stripped = text.strip()
        match = _CANONICAL.fullmatch(stripped)
        if match:
            market = _MARKET_OF_KIND[match["kind"]]
            return cls._from_match(match, market, "%Y%m%d")
        match = _CCXT.fullmatch(stripped)
        if not match:
            raise _not_a_name(text, "it is neither a canonical id nor a ccxt symbol")
        if match["settle"] is None:
            if match["expiry"]:
                raise _not_a_name(text, "a dated contract names its settle asset")
            return cls._from_match(match, MarketType.SPOT, "%y%m%d")
        market = MarketType.PERP
        if match["expiry"]:
            market = MarketType.OPTION if match["strike"] else MarketType.FUTURE
        return cls._from_match(match, market, "%y%m%d")

    @classmethod
    def _from_match(cls, match: re.Match[str], market: MarketType, form: str) -> CanonicalId:
        expiry = None
        if match["expiry"]:
            try:
                expiry = datetime.strptime(match["expiry"], form).date()  # noqa: DTZ007 - a date
            except ValueError:
                raise _not_a_name(match[0], f"{match['expiry']} is no date") from None
        base, quote, settle = match["base"], match["quote"], match["settle"]
        return cls(base, quote, market, settle, expiry, match["strike"], match["side"])

    @property
    def ccxt(self) -> str:
        """The instrument in ccxt's spelling."""
        pair = f"{self.base}/{self.quote}"
        if self.market_type is MarketType.SPOT:
            return pair
        text = f"{pair}:{self.settle}"
        if self.expiry:
            text += f"-{self.expiry:%y%m%d}"
        return f"{text}-{self.strike}-{self.side}" if self.strike else text

    def at(self, venue: Venue, listing: int = 1) -> InstrumentId:
        """Return this instrument at a venue."""
        return InstrumentId(self, venue, listing)

    def __str__(self) -> str:
        settle = "" if self.settle in (None, self.quote) else f":{self.settle}"
        text = f"{self.base}-{self.quote}{settle}-{_KIND_OF_MARKET[self.market_type]}"
        if self.expiry:
            text += f"-{self.expiry:%Y%m%d}"
        return f"{text}-{self.strike}-{self.side}" if self.strike else text


@dataclass(frozen=True, order=True, slots=True)
class InstrumentId:
    """An instrument at a venue; ``listing`` counts listings under the same name from 1."""

    canonical_id: CanonicalId
    venue: Venue
    listing: int = 1

    @classmethod
    def parse(cls, text: str) -> InstrumentId:
        """Read an instrument id.

        Raises:
            InvalidNameError: The text is not of the form ``CANONICAL_ID.VENUE[~N]``.
            UnknownVenueError: No such venue.

        Example:
            >>> InstrumentId.parse("LUNA-USDT-SPOT.OKX~2").listing
            2
        """
        name, dot, tail = text.strip().rpartition(".")
        venue, tilde, listing = tail.partition("~")
        well_formed = bool(dot) and venue == venue.upper()
        if tilde:
            well_formed &= listing.isascii() and listing.isdigit() and str(int(listing)) == listing
            well_formed &= listing not in ("0", "1")
        match = _CANONICAL.fullmatch(name)
        if not well_formed or match is None:
            raise _not_a_name(text, "an instrument id reads like BTC-USDT-SPOT.BINANCE")
        return cls(CanonicalId.parse(name), Venue.parse(venue), int(listing) if tilde else 1)

    def __str__(self) -> str:
        again = f"~{self.listing}" if self.listing > 1 else ""
        return f"{self.canonical_id}.{self.venue.upper()}{again}"


def suggest(text: str, names: Iterable[str], *, label: str = "Known") -> str:
    """Return a sentence that offers the names nearest to ``text``, or the first few."""
    known = [str(name) for name in names]
    if not known:
        return f"{label}: none"
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(text.strip().casefold(), list(folded), n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(folded[name] for name in near) + "?"
    shown = ", ".join(known[:12])
    return f"{label}: {shown}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def _not_a_name(text: str, why: str) -> InvalidNameError:
    return InvalidNameError(
        f"{text!r} names no instrument: {why}",
        remedy="Write BTC-USDT-SPOT, BTC-USDT-PERP or, as ccxt does, BTC/USDT",
        text=text,
    )
