"""What a venue's failures mean to us, as data: one table, first matching row wins.

A row says which failure it is about (venue, HTTP status, the venue's code, a pattern in
the body, or how the network failed), which error it becomes, what we do about it, and what
the user reads. Actions:

=====  =====================================================================
retry  ask again after a random pause that doubles, a bounded number of times
wait   the venue named a time: every worker waits for it, then we ask again
stop   a ban: no worker asks anything until it ends; a long one is raised
fatal  asking again cannot help; the error leaves at once
=====  =====================================================================
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from contracts.errors import (
    PayloadError,
    RateLimitedError,
    TidemarkError,
    UnknownSymbolError,
    UnsupportedByVenueError,
    VenueRejectedError,
    VenueUnavailableError,
)
from contracts.names import Venue

if TYPE_CHECKING:
    from flows.venues.base import Answer, Call

_LONGEST_ERROR_BODY = 65_536


class Action(StrEnum):
    """What we do about a failure."""

    RETRY = "retry"
    WAIT = "wait"
    STOP = "stop"
    FATAL = "fatal"


class NetworkFailure(StrEnum):
    """How a request can fail before a whole answer is there."""

    REFUSED = "refused"
    RESET = "reset"
    TIMEOUT = "timeout"
    NAME = "name"
    TLS = "tls"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; a None matches everything.

    Attributes:
        venue: The venue.
        status: HTTP status, or a whole class of them as ``range``.
        code: The venue's own error code in a JSON body.
        pattern: Regular expression found in the body.
        network: How the network failed.
        error: The class that leaves when we give up.
        action: What we do.
        what: What happened, after "binance: ".
        advice: What the reader can do.
        wait_seconds: How long to wait when the venue names no time.
        attempts: Most attempts, where fewer than usual make sense.
    """

    error: type[TidemarkError]
    action: Action
    what: str
    advice: str
    venue: Venue | None = None
    status: int | range | None = None
    code: int | None = None
    pattern: str | None = None
    network: NetworkFailure | None = None
    wait_seconds: float = 0.0
    attempts: int | None = None

    def matches(self, failure: Failure) -> bool:
        """Tell whether the row is about this failure."""
        if self.network is not failure.network:
            return False
        if self.venue is not None and self.venue is not failure.venue:
            return False
        if isinstance(self.status, range):
            if failure.status not in self.status:
                return False
        elif self.status is not None and self.status != failure.status:
            return False
        if self.code is not None and self.code != failure.code:
            return False
        return self.pattern is None or re.search(self.pattern, failure.text) is not None


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as the table sees it."""

    venue: Venue
    status: int | None = None
    code: int | None = None
    text: str = ""
    network: NetworkFailure | None = None
    detail: str = ""
    payload: PayloadError | None = None

    @classmethod
    def of_answer(cls, venue: Venue, answer: Answer) -> Failure:
        """Read status, code and message of an answer that is no success."""
        text = answer.body[:_LONGEST_ERROR_BODY].decode("utf-8", "replace")
        if answer.cut is not None and answer.status == 200:
            network = NetworkFailure.CUT
            return cls(venue, answer.status, text=text, network=network, detail=answer.cut)
        code, message = _code_and_message(text)
        return cls(venue, answer.status, code, text, detail=message)

    @classmethod
    def of_payload(cls, venue: Venue, answer: Answer, error: PayloadError) -> Failure:
        """Wrap the complaint of a parser about an answer that claims success."""
        text = answer.body[:256].decode("utf-8", "replace").strip()
        return cls(venue, answer.status, text=text, detail=error.message, payload=error)

    def __str__(self) -> str:
        if self.network is not None:
            return self.detail
        code = "" if self.code is None else f" {self.code}"
        detail = f": {self.detail}" if self.detail else ""
        return f"HTTP {self.status}{code}{detail}"


def _code_and_message(text: str) -> tuple[int | None, str]:
    if not text.lstrip().startswith("{"):
        return None, ""
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None, ""
    code, message = body.get("code"), body.get("msg")
    return (
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        message[:300] if isinstance(message, str) else "",
    )


_AGAIN = "Run the same command again later: what is stored is kept, only the rest is asked"
_OUR_BUG = "Report it with this message: the adapter asked for something it should not"
_MAINTENANCE = f"The venue is down or under maintenance; see its status page. {_AGAIN}"

_BINANCE = (
    Row(
        RateLimitedError,
        Action.STOP,
        "this address is banned for asking on after a rate limit",
        "Stop every program on this address that asks binance, and wait for the ban to end",
        status=418,
        wait_seconds=120,
    ),
    Row(
        RateLimitedError,
        Action.WAIT,
        "the request weight of this minute is used up",
        "Stop other programs on this address that ask binance, or lower the concurrency",
        status=429,
        wait_seconds=60,
    ),
    Row(
        RateLimitedError,
        Action.STOP,
        "its web firewall blocks this address",
        "Wait some minutes; if it stays, ask from another address or lower the concurrency",
        status=403,
        wait_seconds=300,
    ),
    Row(
        VenueRejectedError,
        Action.FATAL,
        "it does not serve the country of this address",
        "Use the market data host: set the venue's base_url to https://data-api.binance.vision",
        status=451,
    ),
    Row(
        RateLimitedError,
        Action.WAIT,
        "too many requests",
        "Stop other programs on this address that ask binance, or lower the concurrency",
        code=-1003,
        wait_seconds=60,
    ),
    Row(
        UnknownSymbolError,
        Action.FATAL,
        "it lists no such symbol",
        "Check the spelling with `lake instruments`; the archive keeps delisted ones",
        code=-1121,
    ),
    Row(
        UnsupportedByVenueError,
        Action.FATAL,
        "it does not know this timeframe",
        "Choose a timeframe that the venue offers",
        code=-1120,
    ),
    Row(
        VenueRejectedError,
        Action.FATAL,
        "a parameter holds illegal characters",
        "Check the symbol: binance writes BTCUSDT, capitals without a separator",
        code=-1100,
    ),
    Row(VenueRejectedError, Action.FATAL, "a parameter is missing or empty", _OUR_BUG, code=-1102),
    Row(
        VenueRejectedError,
        Action.FATAL,
        "the span between start and end is too long",
        "Ask for a shorter span",
        code=-1127,
    ),
    Row(VenueRejectedError, Action.FATAL, "a parameter is invalid", _OUR_BUG, code=-1130),
    Row(VenueUnavailableError, Action.RETRY, "it failed inside", _AGAIN, code=-1000),
    Row(VenueUnavailableError, Action.RETRY, "it was cut off from its backend", _AGAIN, code=-1001),
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "its backend did not answer in time",
        _AGAIN,
        code=-1007,
    ),
    Row(VenueUnavailableError, Action.RETRY, "it is overloaded", _AGAIN, code=-1008),
    Row(
        VenueUnavailableError, Action.RETRY, "it is shut for maintenance", _MAINTENANCE, code=-1016
    ),
)

_EVERY_VENUE = (
    Row(
        RateLimitedError,
        Action.WAIT,
        "too many requests",
        "Stop other programs on this address that ask this venue, or lower the concurrency",
        status=429,
        wait_seconds=60,
    ),
    Row(VenueUnavailableError, Action.RETRY, "the request timed out there", _AGAIN, status=408),
    Row(VenueUnavailableError, Action.RETRY, "it is failing", _MAINTENANCE, status=range(500, 600)),
    Row(
        PayloadError,
        Action.RETRY,
        "the answer is a redirect, so something between us and the venue spoke",
        "Look for a proxy or a login page on this network",
        status=range(300, 400),
        attempts=3,
    ),
    Row(
        VenueRejectedError,
        Action.FATAL,
        "it refused the request",
        "The message of the venue says why; if it does not, report it",
        status=range(400, 500),
    ),
    Row(
        PayloadError,
        Action.RETRY,
        "HTML came where data belongs",
        f"A proxy or a maintenance page answered; the body is kept in bronze. {_AGAIN}",
        pattern=r"\A<",
        attempts=3,
    ),
    Row(
        PayloadError,
        Action.RETRY,
        "an empty body came where data belongs",
        _AGAIN,
        pattern=r"\A\Z",
        attempts=3,
    ),
    Row(
        PayloadError,
        Action.RETRY,
        "the answer has a shape we do not know",
        "The raw response is kept; parse it again from bronze once the parser knows this shape",
        attempts=3,
    ),
)

_NO_NETWORK = "Check that this machine reaches the venue (network, firewall, proxy)"

_NETWORK = (
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "nobody accepts connections there",
        f"{_NO_NETWORK}; for a replay exchange, that it runs on this port",
        network=NetworkFailure.REFUSED,
    ),
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "the connection was lost",
        f"{_NO_NETWORK}. {_AGAIN}",
        network=NetworkFailure.RESET,
    ),
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "no answer came in time",
        f"{_NO_NETWORK}, or raise the timeout. {_AGAIN}",
        network=NetworkFailure.TIMEOUT,
    ),
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "its host name was not found",
        f"{_NO_NETWORK}, and the name service",
        network=NetworkFailure.NAME,
    ),
    Row(
        VenueUnavailableError,
        Action.FATAL,
        "its certificate was not accepted",
        "Something between us and the venue speaks in its name, or this clock is wrong",
        network=NetworkFailure.TLS,
    ),
    Row(
        VenueUnavailableError,
        Action.RETRY,
        "the answer was cut short",
        f"{_NO_NETWORK}. {_AGAIN}",
        network=NetworkFailure.CUT,
    ),
)

ROWS: tuple[Row, ...] = (
    *(replace(row, venue=Venue.BINANCE) for row in _BINANCE),
    *_NETWORK,
    *_EVERY_VENUE,
)


def row_for(failure: Failure) -> Row:
    """Return the row of the table that the failure falls under."""
    if failure.payload is not None:
        failure = replace(failure, code=None)
    return next(row for row in ROWS if row.matches(failure))


def error_for(row: Row, failure: Failure, call: Call, **context: object) -> TidemarkError:
    """Return the error that leaves: what happened where, and what to do."""
    name = failure.venue.value
    asked = f"{call.endpoint} for {call.symbol}" if call.symbol else call.endpoint
    return row.error(
        f"{name}: {row.what} ({asked}; {failure})",
        remedy=row.advice,
        venue=name,
        endpoint=call.endpoint,
        symbol=call.symbol,
        params=dict(call.params),
        status=failure.status,
        venue_code=failure.code,
        **context,
    )
