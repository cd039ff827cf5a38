"""One file per venue: a table of facts, a few requests, small parsers.

``open_venue`` is the way in. Every adapter of a venue and address shares one limiter, for
as long as the process lives: that is how venues count.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from contracts.errors import UnsupportedByVenueError
from contracts.names import Venue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from contracts.time import Clock
    from flows.venues.base import OnFailedResponse, OnWait, VenueAdapter
    from flows.venues.limiter import WeightedLimiter

__all__ = ["REGISTRY", "open_venue", "supported"]

REGISTRY = {Venue.BINANCE: ("flows.venues.binance", "BinanceSpot")}

_LIMITERS: dict[tuple[Venue, str | None, bool], WeightedLimiter] = {}


def supported() -> tuple[Venue, ...]:
    """Return the venues that have an adapter."""
    return tuple(REGISTRY)


@asynccontextmanager
async def open_venue(
    venue: Venue,
    *,
    clock: Clock,
    base_url: str | None = None,
    limit: bool = True,
    concurrency: int = 8,
    on_failed_response: OnFailedResponse | None = None,
    on_wait: OnWait | None = None,
    max_attempts: int = 6,
    timeout_seconds: float = 10,
) -> AsyncIterator[VenueAdapter]:
    """Open the adapter of a venue, and close its connections at the end.

    Args:
        venue: Which venue.
        clock: Dates requests and answers.
        base_url: None for the venue itself; the address of one of its mirrors; anything
            else is a replay exchange, asked at ``BASE_URL/HOST/PATH``.
        limit: Whether to keep to the venue's budget. Pauses that the venue asks for are
            always kept.
        concurrency: Requests under way at once at most.
        on_failed_response: Gets every answer on a data endpoint that is no success, before
            the retry or the error, so that nothing the venue said is lost.
        on_wait: Gets the reason and the seconds of every wait worth telling.
        max_attempts: Attempts of one call at most.
        timeout_seconds: Longest silence of the venue; a whole answer may take six times that.

    Raises:
        UnsupportedByVenueError: There is no adapter for this venue.
    """
    _check_supported(venue)
    import aiohttp

    from flows.venues.client import VenueClient, raw_exchange

    module_name, class_name = REGISTRY[venue]
    facts = import_module(module_name)
    loopback = base_url is not None and urlsplit(base_url).hostname in ("127.0.0.1", "localhost")
    timeout = aiohttp.ClientTimeout(
        total=6 * timeout_seconds, sock_connect=timeout_seconds, sock_read=timeout_seconds
    )
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency), timeout=timeout, trust_env=not loopback
    ) as session:
        client = VenueClient(
            venue,
            raw_exchange(facts.CCXT_NAME, session, base_url=base_url, mirrors=facts.MIRRORS),
            limiter=_limiter(venue, base_url, facts.BUDGET if limit else None),
            clock=clock,
            used_weight_header=facts.USED_WEIGHT_HEADER,
            concurrency=concurrency,
            max_attempts=max_attempts,
            on_failed_response=on_failed_response,
            on_wait=on_wait,
        )
        yield cast("VenueAdapter", getattr(facts, class_name)(client))


def _check_supported(venue: Venue) -> None:
    if venue not in REGISTRY:
        known = ", ".join(name.value for name in REGISTRY)
        raise UnsupportedByVenueError(
            f"there is no adapter for {venue}", remedy=f"Choose one of: {known}", venue=venue.value
        )


def _limiter(venue: Venue, base_url: str | None, budget: object) -> WeightedLimiter:
    from flows.venues.limiter import Budget, WeightedLimiter

    key = (venue, base_url and base_url.rstrip("/"), budget is not None)
    if key not in _LIMITERS:
        allowed = budget if isinstance(budget, Budget) else None
        _LIMITERS[key] = WeightedLimiter(venue.value, allowed)
    return _LIMITERS[key]
