"""Fetch: ask a venue for the pages of a batch, and about the holes they leave.

An answer that lacks bars is not believed at once: for each hole the venue is asked for the
first bar at or after it. Where that bar lies inside the hole, the page was cut short, by a
fault on the way for instance, and is asked for again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contracts.errors import PayloadError, RateLimitedError, VenueError, VenueUnavailableError
from contracts.time import EPOCH, Span, iso

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from contracts.response import Response
    from flows.batches import Ask, BarStream, Batch
    from flows.venues.base import VenueAdapter

# More holes than this in one ask are taken from the pages alone.
MOST_CONFIRMED = 64
_STOPS_THE_RUN = (VenueUnavailableError, RateLimitedError)


@dataclass
class Fetched:
    """The answers to one ask, page by page, or the error that ended it."""

    ask: Ask
    responses: list[Response] = field(default_factory=list)
    failure: VenueError | None = None


async def fetch_batch(adapter: VenueAdapter, batch: Batch) -> list[Fetched]:
    """Ask for all pages of a batch at once.

    Raises:
        VenueUnavailableError: The venue is down; the run cannot go on.
        RateLimitedError: The venue told us to stop.
    """
    return list(await asyncio.gather(*(_fetch_ask(adapter, ask) for ask in batch.asks)))


async def _fetch_ask(adapter: VenueAdapter, ask: Ask) -> Fetched:
    stream = ask.stream
    calls = [
        asyncio.ensure_future(adapter.fetch_bars(stream.venue_symbol, stream.timeframe, page))
        for page in ask.pages
    ]
    try:
        return Fetched(ask, list(await asyncio.gather(*calls)))
    except _STOPS_THE_RUN:
        raise
    except VenueError as failure:
        return Fetched(ask, failure=failure)
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def first_bar(
    adapter: VenueAdapter, stream: BarStream, at_or_after: datetime = EPOCH
) -> tuple[datetime | None, Response]:
    """Return when the first bar at or after a time opens, or None, with the answer."""
    response = await adapter.fetch_first_bar(stream.venue_symbol, stream.timeframe, at_or_after)
    bars = adapter.parse_bars(response)
    return (None if bars.is_empty() else bars["open_time"][0]), response


@dataclass
class Confirmed:
    """What the venue said of the holes of one ask.

    Attributes:
        evidence: For each confirmed hole the response that confirms it.
        cut_short: Pages that lacked bars which the venue does have.
        responses: All answers, to be landed.
    """

    evidence: dict[Span, str] = field(default_factory=dict)
    cut_short: list[Span] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)


async def confirm_holes(adapter: VenueAdapter, ask: Ask, holes: Sequence[Span]) -> Confirmed:
    """Ask the venue about each hole, the first ``MOST_CONFIRMED`` of them.

    No bar at or after a hole is not taken for an answer: the newest bar must then be older.
    """
    asked = list(holes)[:MOST_CONFIRMED]
    answers = await asyncio.gather(*(first_bar(adapter, ask.stream, hole.start) for hole in asked))
    confirmed = Confirmed()
    newest: tuple[datetime | None, Response] | None = None
    for hole, (opened, response) in zip(asked, answers, strict=True):
        confirmed.responses.append(response)
        _check_at_or_after(adapter, ask, hole, opened, response)
        if opened is None:
            if newest is None:
                newest = await newest_bar(adapter, ask.stream)
                confirmed.responses.append(newest[1])
            _weigh_silence(adapter, ask, hole, newest, confirmed)
        elif opened < hole.end:
            confirmed.cut_short += [page for page in ask.pages if page.intersection(hole)]
        else:
            confirmed.evidence[hole] = f"response {response.response_id}"
    return confirmed


async def newest_bar(adapter: VenueAdapter, stream: BarStream) -> tuple[datetime | None, Response]:
    """Return when the newest bar opens, or None, with the answer."""
    response = await adapter.fetch_newest_bar(stream.venue_symbol, stream.timeframe)
    bars = adapter.parse_bars(response)
    return (None if bars.is_empty() else bars["open_time"][-1]), response


def _check_at_or_after(
    adapter: VenueAdapter, ask: Ask, hole: Span, opened: datetime | None, response: Response
) -> None:
    if opened is not None and opened < hole.start:
        raise PayloadError(
            f"{ask.stream}: asked for bars from {iso(hole.start)} on, {adapter.venue} gave "
            f"one of {iso(opened)}",
            remedy="The raw response is kept; run again, and report it if it stays so",
            response_id=response.response_id,
        )


def _weigh_silence(
    adapter: VenueAdapter,
    ask: Ask,
    hole: Span,
    newest: tuple[datetime | None, Response],
    confirmed: Confirmed,
) -> None:
    """Decide what it means that the venue gave no bar at or after a hole."""
    opened, response = newest
    if opened is None:
        raise PayloadError(
            f"{ask.stream}: {adapter.venue} answers with empty lists, even for its newest bar",
            remedy="An empty list is no proof of anything; run again later",
            response_id=response.response_id,
        )
    if opened < hole.start:
        confirmed.evidence[hole] = f"response {response.response_id}"
    else:
        confirmed.cut_short += [page for page in ask.pages if page.intersection(hole)]


async def fetch_again(adapter: VenueAdapter, ask: Ask, pages: Sequence[Span]) -> list[Response]:
    """Ask for some pages of an ask once more."""
    stream = ask.stream
    calls = (
        adapter.fetch_bars(stream.venue_symbol, stream.timeframe, page)
        for page in dict.fromkeys(pages)
    )
    return list(await asyncio.gather(*calls))
