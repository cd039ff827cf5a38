"""The twin of Binance spot: ping, time, exchangeInfo and klines.

Source: the venue's REST documentation, compared with recorded answers in the tests.
The one stated departure: fields that the tape lacks are null.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from contracts.errors import TapeError
from contracts.names import CanonicalId, MarketType, Timeframe, Venue
from contracts.time import to_millis
from flows.replay import binance_answers as answers
from flows.replay.kline_text import KlineTexts, row_texts
from flows.replay.open_bar import open_bar
from flows.replay.twin import PageRequest, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from contracts.time import Clock
    from flows.replay.tape import BarSeries, Tape

DEFAULT_LIMIT, MAX_LIMIT = 500, 1000
WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/klines": 2,
}
_INTERVAL_MILLIS = {str(frame): frame.micros // 1000 for frame in Timeframe.all()}
_DAY = 86_400_000
# Asked of the venue these have answers, but no tape holds them: they are valid and empty.
_INTERVAL_MILLIS |= {"1s": 1000, "3d": 3 * _DAY, "1w": 7 * _DAY, "1M": 30 * _DAY}
_SYMBOL = re.compile(r"[A-Z0-9\-_.]{1,20}")
_INTEGER = re.compile(r"[0-9]{1,20}")
_UTC_ZONES = ("0", "00:00", "+0", "+00:00", "0:00")
_MICROS_FROM = 100_000_000_000_000


class Refused(Exception):  # noqa: N818 - it carries an answer, not a failure
    """The venue refuses the request with this answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class BinanceTwin:
    """Answers as Binance spot does, from the spot bars of a tape.

    Raises:
        TapeError: The tape has no Binance spot bars.
    """

    hosts = ("api.binance.com", "data-api.binance.vision")

    def __init__(self, tape: Tape, clock: Clock, *, weight_limit: int = 6000) -> None:
        self._tape = tape
        self._clock = clock
        self._weight_limit = weight_limit
        self._texts = KlineTexts()
        self._listed: dict[str, CanonicalId] = {}
        self._timeframes: dict[CanonicalId, list[Timeframe]] = {}
        for canonical_id, timeframe in tape.bar_series(Venue.BINANCE, MarketType.SPOT):
            self._listed[f"{canonical_id.base}{canonical_id.quote}"] = canonical_id
            self._timeframes.setdefault(canonical_id, []).append(timeframe)
        if not self._listed:
            raise TapeError(
                "the tape has no Binance spot bars",
                remedy="Name spot bars of venue binance in tape.toml",
            )

    def weight(self, endpoint: str, query: Mapping[str, str]) -> int:
        """Return what a request costs."""
        return WEIGHTS.get(endpoint, 1)

    def answer(self, endpoint: str, query: Mapping[str, str]) -> Reply:
        """Return the answer to a request."""
        handlers = {
            "/api/v3/ping": self._ping,
            "/api/v3/time": self._time,
            "/api/v3/exchangeInfo": self._exchange_info,
            "/api/v3/klines": self._klines,
        }
        handler = handlers.get(endpoint)
        if handler is None:
            return answers.html(404)
        try:
            return handler(query)
        except Refused as refused:
            return refused.reply

    def page_request(self, endpoint: str, query: Mapping[str, str]) -> PageRequest:
        """Return the window that a request for a page asks for."""
        return PageRequest(
            _millis(query, "startTime", up=True),
            _millis(query, "endTime", up=False),
            _INTERVAL_MILLIS[query["interval"]],
        )

    def refusal(self, status: int, retry_after_seconds: int) -> Reply:
        """Return the answer to who goes beyond the limits (429) or is banned (418)."""
        until = to_millis(self._clock.known()) + retry_after_seconds * 1000
        return answers.refusal(status, retry_after_seconds, until, self._weight_limit)

    def failure(self, status: int) -> Reply:
        """Return what the venue sends with an HTTP status of its own trouble."""
        return answers.failure(status)

    def _ping(self, query: Mapping[str, str]) -> Reply:
        return json_reply({})

    def _time(self, query: Mapping[str, str]) -> Reply:
        return json_reply({"serverTime": to_millis(self._clock.known())})

    def _exchange_info(self, query: Mapping[str, str]) -> Reply:
        asked = list(self._listed)
        if "symbol" in query and "symbols" in query:
            raise Refused(answers.error(-1128, "Combination of optional parameters invalid."))
        if "symbol" in query:
            asked = [_symbol(query["symbol"])]
        elif "symbols" in query:
            asked = _symbols(query["symbols"])
        symbols = []
        for name in asked:
            canonical_id = self._listing(name)
            rules = self._tape.rules(Venue.BINANCE, canonical_id)
            symbols.append(answers.symbol(name, canonical_id, rules))
        if query.get("symbolStatus", "TRADING") != "TRADING":
            symbols = []
        now = to_millis(self._clock.known())
        return json_reply(answers.exchange_info(now, symbols, self._weight_limit))

    def _klines(self, query: Mapping[str, str]) -> Reply:
        canonical_id = self._listing(_symbol(_mandatory(query, "symbol")))
        interval = _mandatory(query, "interval")
        if interval not in _INTERVAL_MILLIS:
            raise Refused(answers.error(-1120, "Invalid interval."))
        if query.get("timeZone", "0") not in _UTC_ZONES:
            raise Refused(answers.error(-1130, "The replay exchange knows timeZone 0 only."))
        limit = _limit(query)
        start, end = _millis(query, "startTime", up=True), _millis(query, "endTime", up=False)
        now = self._clock.known()
        series = self._series(canonical_id, interval, now)
        if series is None:
            return Reply(rows=[])
        visible = series.position(to_millis(now), after=True)
        last = visible if end is None else min(visible, series.position(end, after=True))
        first = max(0, last - limit) if start is None else series.position(start)
        last = min(last, first + limit) if start is not None else last
        return Reply(rows=self._rows(series, first, last, now))

    def _rows(self, series: BarSeries, first: int, last: int, now: datetime) -> list[str]:
        """Return the rows of a page, those that are still open at ``now`` unfinished."""
        closed = series.position(to_millis(now) - series.interval_millis, after=True)
        rows = self._texts.rows(series, first, min(last, closed))
        for position in range(max(first, closed), last):
            unfinished = open_bar(series, position, now, self._finer(series, now))
            rows += row_texts(unfinished, series.interval_millis)
        return rows

    def _finer(self, series: BarSeries, now: datetime) -> list[BarSeries]:
        canonical_id = series.key.canonical_id
        shorter = [
            timeframe
            for timeframe in self._timeframes[canonical_id]
            if timeframe < series.key.timeframe
        ]
        held = (self._tape.series(Venue.BINANCE, canonical_id, each, now) for each in shorter)
        return [found for found in held if found is not None]

    def _series(self, canonical_id: CanonicalId, interval: str, now: datetime) -> BarSeries | None:
        for timeframe in self._timeframes[canonical_id]:
            if str(timeframe) == interval:
                return self._tape.series(Venue.BINANCE, canonical_id, timeframe, now)
        return None

    def _listing(self, name: str) -> CanonicalId:
        if name not in self._listed:
            raise Refused(answers.error(-1121, "Invalid symbol."))
        return self._listed[name]


def _mandatory(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if not value:
        message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise Refused(answers.error(-1102, message))
    return value


def _symbol(text: str) -> str:
    if not _SYMBOL.fullmatch(text):
        raise Refused(answers.illegal("symbol", "^[A-Z0-9-_.]{1,20}$"))
    return text


def _symbols(text: str) -> list[str]:
    try:
        names: Any = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        form = '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$'
        raise Refused(answers.illegal("symbols", form))
    return [_symbol(name) for name in names]


def _integer(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    if not query[name]:
        raise Refused(answers.error(-1105, f"Parameter '{name}' was empty."))
    if not _INTEGER.fullmatch(query[name]):
        raise Refused(answers.illegal(name, "^[0-9]{1,20}$"))
    return int(query[name])


def _limit(query: Mapping[str, str]) -> int:
    limit = _integer(query, "limit")
    if limit == 0:
        raise Refused(answers.error(-1130, "Data sent for parameter 'limit' is not valid."))
    return min(limit or DEFAULT_LIMIT, MAX_LIMIT)


def _millis(query: Mapping[str, str], name: str, *, up: bool) -> int | None:
    """Return a time in ms; the venue also reads microseconds."""
    value = _integer(query, name)
    if value is None or value < _MICROS_FROM:
        return value
    return -(-value // 1000) if up else value // 1000
