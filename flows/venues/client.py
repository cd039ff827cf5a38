"""Sending requests: ccxt signs and names them, we send, judge, wait and retry.

ccxt's own ``fetch`` is replaced, because it decodes the body with replacement characters,
parses it, keeps it in attributes that concurrent calls share, and raises by rules of its
own. Ours returns the ``Answer`` itself: bytes, headers and status travel with the call.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import yarl

from contracts.errors import PayloadError, RateLimitedError
from contracts.response import Response
from contracts.time import from_millis
from flows.venues.base import Answer
from flows.venues.errors import Action, Failure, NetworkFailure, Row, error_for, row_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from contracts.errors import TidemarkError
    from contracts.names import Venue
    from contracts.time import Clock
    from flows.venues.base import Call, OnFailedResponse, OnWait
    from flows.venues.limiter import WeightedLimiter

log = logging.getLogger(__name__)

_BANNED_UNTIL = re.compile(r"banned until (\d{13})\b")
_USER_AGENT = "tidemark"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: random up to a limit that doubles (full jitter)."""

    first_seconds: float = 0.25
    most_seconds: float = 20.0

    def pause(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """Return the pause after that many failed attempts, from 1."""
        return chance() * min(self.most_seconds, self.first_seconds * 2.0 ** (attempt - 1))


class NetworkError(Exception):
    """No whole answer came; never leaves this module."""

    def __init__(self, kind: NetworkFailure, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def raw_exchange(
    name: str, session: aiohttp.ClientSession, *, base_url: str | None, mirrors: Iterable[str] = ()
) -> Any:
    """Return a ccxt exchange whose raw endpoints return an ``Answer``.

    Args:
        name: ccxt's name of the exchange.
        session: Sends the requests; stays the caller's to close.
        base_url: None for the venue's own hosts; one of ``mirrors`` to ask that host in
            their stead; anything else is a replay exchange, where the path begins with
            the real host: ``https://HOST/PATH`` becomes ``BASE_URL/HOST/PATH``.
        mirrors: Hosts of the venue that serve the same paths.
    """
    import ccxt.async_support

    class Raw(getattr(ccxt.async_support, name)):  # type: ignore[misc]
        async def fetch(
            self, url: str, method: str = "GET", headers: Any = None, body: Any = None
        ) -> Answer:
            return await send(session, url, method)

    exchange = Raw({"enableRateLimit": False})
    if base_url is not None:
        base = base_url.rstrip("/")
        direct = base in {mirror.rstrip("/") for mirror in mirrors}
        exchange.urls = {**exchange.urls, "api": _rebased(exchange.urls["api"], base, direct)}
    return exchange


def _rebased(urls: Any, base: str, direct: bool) -> Any:
    if isinstance(urls, dict):
        return {key: _rebased(value, base, direct) for key, value in urls.items()}
    if not isinstance(urls, str) or "://" not in urls:
        return urls
    parts = urlsplit(urls)
    return base + parts.path if direct else f"{base}/{parts.hostname}{parts.path}"


async def send(session: aiohttp.ClientSession, url: str, method: str = "GET") -> Answer:
    """Send one request and return what came, however little of it.

    Raises:
        NetworkError: Not even a status line came.
    """
    headers = {"User-Agent": _USER_AGENT, "Accept": "application/json"}
    chunks: list[bytes] = []
    cut = None
    try:
        async with session.request(
            method, yarl.URL(url, encoded=True), headers=headers, allow_redirects=False
        ) as answer:
            try:
                while chunk := await answer.content.readany():
                    chunks.append(chunk)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                cut = f"the body ended after {sum(map(len, chunks))} bytes: {_told(error)}"
            names = {key.lower(): value for key, value in answer.headers.items()}
            return Answer(answer.status, names, b"".join(chunks), cut)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NetworkError(_kind(error), _told(error)) from error


def _kind(error: Exception) -> NetworkFailure:
    if isinstance(error, TimeoutError):
        return NetworkFailure.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NetworkFailure.NAME
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return NetworkFailure.TLS
    if isinstance(error, aiohttp.ClientConnectorError):
        return NetworkFailure.REFUSED
    return NetworkFailure.RESET


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed: how, with what answer, and the wait that the venue named."""

    failure: Failure
    response: Response | None = None
    named_wait: float | None = None

    def wait_for(self, row: Row) -> float:
        """Return the seconds to wait: the venue's, else the table's."""
        return row.wait_seconds if self.named_wait is None else self.named_wait


class VenueClient:
    """Sends the calls of one adapter: limits, keeps failures, retries, gives up by name."""

    def __init__(
        self,
        venue: Venue,
        exchange: Any,
        *,
        limiter: WeightedLimiter,
        clock: Clock,
        used_weight_header: str,
        concurrency: int = 8,
        max_attempts: int = 6,
        backoff: Backoff | None = None,
        on_failed_response: OnFailedResponse | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        self._venue = venue
        self._exchange = exchange
        self._limiter = limiter
        self._clock = clock
        self._used_weight_header = used_weight_header
        self._slots = asyncio.Semaphore(concurrency)
        self._max_attempts = max_attempts
        self._backoff = backoff or Backoff()
        self._on_failed_response = on_failed_response
        self._on_wait = on_wait

    async def get(self, call: Call) -> Response:
        """Return the answer to a call, its shape checked.

        Raises:
            TidemarkError: By the error table, with venue, endpoint and symbol as context.
        """
        attempt = 0
        while True:
            attempt += 1
            outcome = await self._attempt(call)
            if isinstance(outcome, Response):
                return outcome
            failure, row = outcome.failure, row_for(outcome.failure)
            if row.action in (Action.WAIT, Action.STOP):
                reason = f"{self._venue.value}: {row.what} ({failure})"
                self._limiter.pause(outcome.wait_for(row), reason)
            facts = {"attempt": attempt, "action": row.action.value, "status": failure.status}
            log.warning("venue.failed", extra={"venue": self._venue.value, **facts})
            most = min(self._max_attempts, row.attempts or self._max_attempts)
            if row.action is Action.FATAL or attempt >= most:
                raise _given_up(row, outcome, call, attempt)
            if row.action is Action.RETRY:
                await self._pause(row, attempt, outcome.named_wait)

    async def _pause(self, row: Row, attempt: int, wait: float | None) -> None:
        seconds = max(self._backoff.pause(attempt), wait or 0.0)
        if self._on_wait is not None:
            self._on_wait(f"{self._venue.value}: {row.what}, attempt {attempt} failed", seconds)
        await asyncio.sleep(seconds)

    async def _attempt(self, call: Call) -> Response | Failed:
        async with self._slots:
            try:
                async with self._limiter.request(call.weight, self._on_wait) as ticket:
                    asked = self._clock.known()
                    answer = await self._ask(call)
                    if isinstance(answer, Answer):
                        ticket.used = _whole(answer.headers.get(self._used_weight_header))
            except RateLimitedError as error:
                where = {"endpoint": call.endpoint, "symbol": call.symbol}
                context = error.context | {"venue": self._venue.value} | where
                raise RateLimitedError(error.message, remedy=error.remedy, **context) from None
        if isinstance(answer, Failure):
            return Failed(answer)
        response = self._response(call, answer, asked)
        failure = self._judged(call, answer, response)
        if failure is None:
            return response
        if call.is_data and self._on_failed_response is not None:
            self._on_failed_response(response)
        return Failed(failure, response, self._named_wait(answer, failure))

    async def _ask(self, call: Call) -> Answer | Failure:
        try:
            answer: Answer = await getattr(self._exchange, call.method)(dict(call.params))
        except NetworkError as error:
            return Failure(self._venue, network=error.kind, detail=error.detail)
        return answer

    def _response(self, call: Call, answer: Answer, asked: datetime) -> Response:
        return Response(
            venue=self._venue,
            endpoint=call.endpoint,
            params=dict(call.params),
            requested_at=asked,
            received_at=self._clock.known(),
            status=answer.status,
            content_type=answer.headers.get("content-type"),
            body=answer.body,
        )

    def _judged(self, call: Call, answer: Answer, response: Response) -> Failure | None:
        if answer.cut is not None or answer.status != 200:
            return Failure.of_answer(self._venue, answer)
        try:
            call.check(response)
        except PayloadError as error:
            return Failure.of_payload(self._venue, answer, error)
        return None

    def _named_wait(self, answer: Answer, failure: Failure) -> float | None:
        """Seconds that the venue asks us to wait, by its own clock, or None."""
        retry_after = answer.headers.get("retry-after", "").strip()
        if retry_after.isascii() and retry_after.isdigit():
            return float(retry_after)
        here = _http_date(answer.headers.get("date", "")) or self._clock.storage()
        until = _http_date(retry_after)
        banned = _BANNED_UNTIL.search(failure.text)
        if until is None and banned:
            until = from_millis(int(banned[1]))
        return None if until is None else max(0.0, (until - here).total_seconds())


def _given_up(row: Row, outcome: Failed, call: Call, attempts: int) -> TidemarkError:
    context: dict[str, object] = {"attempts": attempts}
    if row.action in (Action.WAIT, Action.STOP):
        context["retry_after_seconds"] = outcome.wait_for(row)
    if outcome.response is not None:
        context["response_id"] = outcome.response.response_id
    return error_for(row, outcome.failure, call, **context)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
