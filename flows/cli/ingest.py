"""``lake backfill``, ``lake update``, ``lake conform``: commands that write.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import asyncio
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from contracts.errors import RequestError, UnsupportedByVenueError
from flows.cli.options import COMMON, OUTPUT, REPLAYING, Common, Many, Output, Replaying
from flows.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from contracts.names import Timeframe, Venue
    from contracts.time import Span
    from flows.cli.connect import Connection
    from flows.ingest import IngestReport
    from flows.work import Work
    from lake.settings import Settings


def backfill(
    *,
    symbols: Annotated[list[str], Many],
    timeframes: Annotated[list[str], Many],
    start: str,
    end: str | None = None,
    venue: str = "binance",
    recheck: bool = False,
    accept_quarantine: bool = False,
    no_limits: bool = False,
    replaying: Replaying = REPLAYING,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Bring a span of some streams to what the venue has.

    Only what the ledger does not know yet is asked: killed and run again, the command goes
    on where it stopped; run twice, it asks for nothing and writes nothing.

    Try: ``lake backfill --symbols BTC/USDT ETH/USDT --timeframes 1m 1h --start 2026-03-24
    --end 2026-04-22``

    Args:
        symbols: What to fetch: BTC/USDT, or the canonical id BTC-USDT-SPOT.
        timeframes: Lengths of the bars, for instance 1m 1h.
        start: First open time, UTC, for instance 2026-03-24 or 2026-03-24T10:00Z.
        end: Where to stop, exclusive; now when left out.
        venue: Who is asked.
        recheck: Ask for everything again, stored or not; what differs is kept as a revision.
        accept_quarantine: Publish good rows even where too many bad ones came with them.
        no_limits: Do not keep to the venue's limits. Meant for replays: a venue bans for it.
    """
    from contracts.names import CanonicalId
    from contracts.time import Span, parse_time
    from flows.backfill import Access, BackfillRequest
    from flows.backfill import backfill as run

    at = _venue(venue)
    lengths = _timeframes(timeframes)
    for symbol in symbols:
        CanonicalId.parse(symbol)
    first = parse_time(start, name="--start")
    last = None if end is None else parse_time(end, name="--end")
    if last is not None:
        Span(first, last)
    with _work("backfill", replaying, common, limits=not no_limits) as (work, connection):
        request = BackfillRequest(
            Access(at, connection.base_url, limit=not no_limits),
            tuple(symbols),
            lengths,
            Span(first, last or connection.clock.known()),
            recheck=recheck,
            accept_quarantine=accept_quarantine,
        )
        report = _reported("backfill", work, lambda: run(work, request))
    return _conclude(work, report, output, span=request.span)


def update(
    *,
    venue: str = "binance",
    recheck_hours: float | None = None,
    no_limits: bool = False,
    replaying: Replaying = REPLAYING,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Bring every stream that the lake knows up to now.

    Try: ``lake update --recheck-hours 6``

    Args:
        venue: Whose streams.
        recheck_hours: Ask again for so many of the newest hours, to catch revisions.
        no_limits: Do not keep to the venue's limits. Meant for replays: a venue bans for it.
    """
    from flows.backfill import Access
    from flows.backfill import update as run
    from lake.root import read_lake
    from lake.store import Store

    at = _venue(venue)
    if recheck_hours is not None and recheck_hours < 0:
        raise RequestError(
            f"--recheck-hours {recheck_hours} is below zero", remedy="Give hours from zero on"
        )
    recheck = None if recheck_hours is None else timedelta(hours=recheck_hours)
    read_lake(Store(common.root))
    with _work("update", replaying, common, limits=not no_limits) as (work, connection):
        access = Access(at, connection.base_url, limit=not no_limits)
        report = _reported("update", work, lambda: run(work, access, recheck=recheck))
    return _conclude(work, report, output)


def conform(
    *,
    from_bronze: bool = True,  # noqa: ARG001 - says what happens; there is no other source
    venue: str = "binance",
    symbols: Annotated[list[str] | None, Many] = None,
    timeframes: Annotated[list[str] | None, Many] = None,
    accept_quarantine: bool = False,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Parse, audit and publish again what was landed, without asking anybody.

    For the day after a parser was mended, or to release a batch that was held back.

    Try: ``lake conform --from-bronze --symbols BTC/USDT --accept-quarantine``

    Args:
        from_bronze: Take the raw answers in bronze.responses; the only source there is.
        venue: Whose answers.
        symbols: Only these; all when left out.
        timeframes: Only these; all when left out.
        accept_quarantine: Publish good rows even where too many bad ones came with them.
    """
    from flows.cli.shared import opened_for_repair
    from flows.reprocess import conform_from_bronze as run

    at = _venue(venue)
    lengths = None if timeframes is None else _timeframes(timeframes)
    work = opened_for_repair(common.root, _settings())
    report = _reported(
        "conform",
        work,
        lambda: run(
            work, at, symbols=symbols, timeframes=lengths, accept_quarantine=accept_quarantine
        ),
    )
    return _conclude(work, report, output)


@contextmanager
def _work(
    what: str, replaying: Replaying, common: Common, *, limits: bool
) -> "Iterator[tuple[Work, Connection]]":
    from flows.cli.connect import connected
    from flows.work import open_work

    settings = _settings()
    with connected(replaying, limits=limits) as connection:
        if connection.base_url is None and not limits:
            say(f"{what}: --no-limits against a live venue: expect to be banned")
        work = open_work(
            common.root, clock=connection.clock, origin=connection.origin, settings=settings
        )
        yield work, connection


def _reported(
    what: str, work: "Work", run: "Callable[[], Awaitable[IngestReport]]"
) -> "IngestReport":
    from flows.cli.progress import shown_progress

    async def whole() -> "IngestReport":
        return await run()

    with shown_progress(what) as progress:
        work.progress = progress
        return asyncio.run(whole())


def _conclude(
    work: "Work", report: "IngestReport", output: Output, *, span: "Span | None" = None
) -> int:
    """Say what the run did: people read stderr, programs the rows on stdout."""
    from flows.cli.output import emit
    from flows.cli.shared import failed_summary, records, summary

    for line in summary(work, report, span):
        say(line)
    emit(records(report), output)
    return failed_summary(report)


def _settings() -> "Settings":
    from lake.settings import read_settings

    return read_settings()


def _venue(text: str) -> "Venue":
    from contracts.names import Venue, suggest
    from flows.venues import supported

    venue = Venue.parse(text)
    if venue not in supported():
        raise UnsupportedByVenueError(
            f"There is no adapter for {venue}",
            remedy=suggest(text, supported()),
            venue=venue.value,
        )
    return venue


def _timeframes(texts: list[str]) -> "tuple[Timeframe, ...]":
    from contracts.names import Timeframe

    return tuple(Timeframe.parse(text) for text in texts)
