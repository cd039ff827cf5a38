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


@dataclass(frozen=True)
class Told:
    """What the venue said when asked for one bar.

    Attributes:
        opened: When that bar opens, None where the venue gave none, or why the answer is no use.
        response: The answer.
    """

    opened: datetime | PayloadError | None
    response: Response


async def first_bar(
    adapter: VenueAdapter, stream: BarStream, at_or_after: datetime = EPOCH
) -> Told:
    """Ask when the first bar at or after a time opens."""
    response = await adapter.fetch_first_bar(stream.venue_symbol, stream.timeframe, at_or_after)
    return _told(adapter, response, at=0)


async def newest_bar(adapter: VenueAdapter, stream: BarStream) -> Told:
    """Ask when the newest bar opens."""
    response = await adapter.fetch_newest_bar(stream.venue_symbol, stream.timeframe)
    return _told(adapter, response, at=-1)


def _told(adapter: VenueAdapter, response: Response, *, at: int) -> Told:
    try:
        bars = adapter.parse_bars(response)
    except PayloadError as failure:
        return Told(failure, response)
    return Told(None if bars.is_empty() else bars["open_time"][at], response)


@dataclass
class Probed:
    """What the venue said of a stream's beginning.

    Attributes:
        listed_at: When its first bar opens, or why that is not known.
        responses: All answers, to be landed.
    """

    listed_at: datetime | VenueError
    responses: list[Response] = field(default_factory=list)


async def probe(adapter: VenueAdapter, stream: BarStream) -> Probed:
    """Ask when a stream begins.

    No bar at all is not taken for an answer: an instrument that trades has a newest bar.
    """
    first = await first_bar(adapter, stream)
    if first.opened is not None:
        return Probed(first.opened, [first.response])
    newest = await newest_bar(adapter, stream)
    return Probed(_no_first_bar(adapter, stream, newest), [first.response, newest.response])


@dataclass
class Confirmed:
    """What the venue said of the holes of one ask.

    Attributes:
        evidence: For each confirmed hole the response that confirms it.
        cut_short: Pages that lacked bars which the venue does have.
        failure: Why an answer cannot be used, where one cannot.
        responses: All answers, to be landed.
    """

    evidence: dict[Span, str] = field(default_factory=dict)
    cut_short: list[Span] = field(default_factory=list)
    failure: PayloadError | None = None
    responses: list[Response] = field(default_factory=list)


async def confirm_holes(adapter: VenueAdapter, ask: Ask, holes: Sequence[Span]) -> Confirmed:
    """Ask the venue about each hole, the first ``MOST_CONFIRMED`` of them.

    No bar at or after a hole is not taken for an answer: the newest bar must then be older.
    """
    asked = list(holes)[:MOST_CONFIRMED]
    answers = await asyncio.gather(*(first_bar(adapter, ask.stream, hole.start) for hole in asked))
    confirmed = Confirmed(responses=[told.response for told in answers])
    newest = None
    if any(told.opened is None for told in answers):
        newest = await newest_bar(adapter, ask.stream)
        confirmed.responses.append(newest.response)
    for hole, told in zip(asked, answers, strict=True):
        if told.opened is None and newest is not None:
            meaning = _meaning(adapter, ask, hole, newest, newest=True)
        else:
            meaning = _meaning(adapter, ask, hole, told, newest=False)
        if isinstance(meaning, PayloadError):
            confirmed.failure = confirmed.failure or meaning
        elif meaning is None:
            confirmed.cut_short += [page for page in ask.pages if page.intersection(hole)]
        else:
            confirmed.evidence[hole] = meaning
    return confirmed


def _meaning(
    adapter: VenueAdapter, ask: Ask, hole: Span, told: Told, *, newest: bool
) -> str | PayloadError | None:
    """Return the evidence for a hole, None where there is a bar in it, or an error.

    Args:
        adapter: The venue.
        ask: What was asked for.
        hole: Where bars are absent.
        told: The first bar from there on; where the venue gave none, its newest bar.
        newest: Which of the two it is.
    """
    opened = told.opened
    if isinstance(opened, PayloadError):
        return opened
    evidence = f"response {told.response.response_id}"
    if newest:
        if opened is None:
            return _no_first_bar(adapter, ask.stream, told)
        return evidence if opened < hole.start else None
    if opened is None or opened < hole.start:
        return PayloadError(
            f"{ask.stream}: asked for bars from {iso(hole.start)} on, {adapter.venue} gave "
            f"one of {opened and iso(opened)}",
            remedy="The raw response is kept; run again, and report it if it stays so",
            response_id=told.response.response_id,
        )
    return None if opened < hole.end else evidence


def _no_first_bar(adapter: VenueAdapter, stream: BarStream, newest: Told) -> PayloadError:
    """Return the error for a venue that gives no bar where it should have one."""
    if isinstance(newest.opened, PayloadError):
        return newest.opened
    if newest.opened is None:
        what = f"{adapter.venue} answers with empty lists, even for its newest bar"
    else:
        what = f"{adapter.venue} has a bar of {iso(newest.opened)}, and gives no first one"
    return PayloadError(
        f"{stream}: {what}",
        remedy="An empty list is no proof of anything; run again later",
        response_id=newest.response.response_id,
    )


async def fetch_again(adapter: VenueAdapter, ask: Ask, pages: Sequence[Span]) -> list[Response]:
    """Ask for some pages of an ask once more."""
    stream = ask.stream
    calls = (
        adapter.fetch_bars(stream.venue_symbol, stream.timeframe, page)
        for page in dict.fromkeys(pages)
    )
    return list(await asyncio.gather(*calls))
