"""Backfill and update: decide from the ledger what to ask, and ingest it.

A backfill brings the asked span of the asked streams to what the venue has. An update does
the same for every stream that the lake knows, from its first observation to now. Neither
asks for what the ledger knows already: both can be killed and run again.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import RequestError, UnknownStreamError, VenueError
from contracts.names import InstrumentId, Timeframe, Venue
from contracts.spec import time_lit
from contracts.tables import BARS, LEDGER, State
from contracts.time import Span, iso
from flows.batches import BarStream, plan_batches, spans_to_ask
from flows.fetch import Probed, probe
from flows.ingest import IngestReport, Terms, fail, ingest
from flows.land import land
from flows.ledger import write_ledger
from flows.reference import find_instruments
from flows.runs import recorded_run
from flows.venues import open_venue
from lake.knowledge import check_clock
from lake.ledger import STREAM, Observation, fold, read_observations, tiling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flows.venues.base import VenueAdapter
    from flows.work import Work


@dataclass(frozen=True)
class Access:
    """How a venue is reached.

    Attributes:
        venue: Which venue.
        base_url: Address of a replay exchange; None is the venue itself.
        limit: Whether to keep to the venue's limits.
    """

    venue: Venue
    base_url: str | None = None
    limit: bool = True


@dataclass(frozen=True)
class BackfillRequest:
    """What a backfill is asked for.

    Attributes:
        access: The venue and how it is reached.
        symbols: Canonical ids or ccxt symbols.
        timeframes: Timeframes.
        span: Bars that open in it are asked for, as far as they are closed.
        recheck: Ask for everything again, stored or not; a revision shows as such.
        accept_quarantine: Publish good rows even where the breaker trips on bad ones.
    """

    access: Access
    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    span: Span
    recheck: bool = False
    accept_quarantine: bool = False

    def arguments(self) -> dict[str, object]:
        """Return the request for ops.runs."""
        return {
            "venue": self.access.venue.value,
            "symbols": list(self.symbols),
            "timeframes": [str(timeframe) for timeframe in self.timeframes],
            "start": iso(self.span.start),
            "end": iso(self.span.end),
            "recheck": self.recheck,
            "accept_quarantine": self.accept_quarantine,
            "replayed": self.access.base_url is not None,
        }


@dataclass
class _Plan:
    """Streams with the spans to ask, and the first bars that the venue told."""

    wanted: list[tuple[BarStream, list[Span]]] = field(default_factory=list)
    listed_at: dict[BarStream, datetime] = field(default_factory=dict)


async def backfill(work: Work, request: BackfillRequest) -> IngestReport:
    """Bring a span of some streams to what the venue has.

    Raises:
        UnknownSymbolError: The venue lists no such symbol.
        UnsupportedByVenueError: The venue offers no such timeframe.
        VenueUnavailableError: The venue is down; what was stored stays.
    """
    if not request.symbols or not request.timeframes:
        raise RequestError(
            "There is nothing to ask for", remedy="Name at least one symbol and one timeframe"
        )
    async with recorded_run(work, "backfill", request.arguments()) as detail:
        await asyncio.to_thread(_check_clock, work)
        async with _adapter(work, request.access) as adapter:
            for timeframe in request.timeframes:
                adapter.check_timeframe(timeframe)
            found = await find_instruments(work, adapter, request.symbols)
            streams = [
                BarStream(instrument, symbol, timeframe)
                for instrument, symbol in dict.fromkeys(found)
                for timeframe in sorted(set(request.timeframes))
            ]
            spans = dict.fromkeys(streams, request.span)
            report = await _bring_up_to_date(
                work,
                adapter,
                spans,
                server_time=await adapter.server_time(),
                recheck=request.recheck,
                accept_quarantine=request.accept_quarantine,
            )
        detail.update(report.counts())
    return report


async def update(work: Work, access: Access, *, recheck: timedelta | None = None) -> IngestReport:
    """Bring every stream of a venue that the lake knows up to now.

    Args:
        work: The run.
        access: The venue and how it is reached.
        recheck: Ask again for so much of the newest past, stored or not.

    Raises:
        UnknownStreamError: The lake knows no stream of this venue.
    """
    arguments = {"venue": access.venue.value, "replayed": access.base_url is not None}
    async with recorded_run(work, "update", arguments) as detail:
        await asyncio.to_thread(_check_clock, work)
        known = await asyncio.to_thread(_known_streams, work, access.venue)
        async with _adapter(work, access) as adapter:
            names = [str(InstrumentId.parse(name).canonical_id) for name, _, _ in known]
            found = {
                str(instrument): (instrument, symbol)
                for instrument, symbol in await find_instruments(
                    work, adapter, list(dict.fromkeys(names))
                )
            }
            now = await adapter.server_time()
            spans = {
                BarStream(*found[name], Timeframe.parse(timeframe)): Span(start, now)
                for name, timeframe, start in known
                if start < now
            }
            report = await _bring_up_to_date(
                work, adapter, spans, server_time=now, recheck_newest=recheck
            )
        detail.update(report.counts())
    return report


@asynccontextmanager
async def _adapter(work: Work, access: Access) -> AsyncIterator[VenueAdapter]:
    async with open_venue(
        access.venue,
        clock=work.clock,
        base_url=access.base_url,
        limit=access.limit,
        concurrency=work.settings.concurrency,
        on_failed_response=work.failed_responses.append,
        on_wait=work.progress.waiting,
    ) as adapter:
        try:
            yield adapter
        finally:
            if work.failed_responses:
                await land(work, [])


def _check_clock(work: Work) -> None:
    """Refuse a run whose clock is behind what the lake knows, before anything is asked."""
    for name in (LEDGER.name, BARS.name):
        check_clock(work.table(name).head(), work.clock.known())


def _known_streams(work: Work, venue: Venue) -> list[tuple[str, str, datetime]]:
    """Return (instrument_id, timeframe, first moment asked for) of the venue's streams."""
    view = work.table(LEDGER.name).head()
    rows = read_observations(work.store, view).filter(pl.col("venue") == venue.value)
    firsts = rows.group_by("instrument_id", "timeframe").agg(pl.col("span_start").min())
    known = list(firsts.sort("timeframe", "instrument_id").iter_rows())
    if not known:
        raise UnknownStreamError(
            f"The lake at {work.store.uri} knows no stream of {venue} to update",
            remedy="Begin with `lake backfill`, which says what to keep current",
            venue=venue.value,
        )
    return known


async def _bring_up_to_date(
    work: Work,
    adapter: VenueAdapter,
    spans: dict[BarStream, Span],
    *,
    server_time: datetime,
    recheck: bool = False,
    recheck_newest: timedelta | None = None,
    accept_quarantine: bool = False,
) -> IngestReport:
    closed_by = server_time - timedelta(seconds=work.settings.grace_seconds)
    report = IngestReport()
    wanted: dict[BarStream, list[Span]] = {}
    tiles = await asyncio.to_thread(_tiles, work, _closed(spans, closed_by))
    for stream, tiled in tiles.items():
        since = None if recheck_newest is None else closed_by - recheck_newest
        wanted[stream] = _to_ask(
            work, stream.timeframe, tiled, recheck=recheck, recheck_since=since
        )
        report.of(stream)
    plan = await _probe(work, adapter, wanted, tiles, report)
    for stream, todo in plan.wanted:
        step = stream.timeframe.duration * adapter.page_bars
        pages = sum(-(-span.duration // step) for span in todo)
        work.progress.plan(str(stream), pages)
    batches = plan_batches(
        plan.wanted, page_bars=adapter.page_bars, batch_pages=work.settings.batch_pages
    )
    terms = Terms(server_time, plan.listed_at, accept_quarantine)
    return await ingest(work, adapter, batches, terms=terms, report=report)


def _closed(spans: dict[BarStream, Span], closed_by: datetime) -> dict[BarStream, Span]:
    """Cut each span to the bars that are closed; a stream without any is left out."""
    cut: dict[BarStream, Span] = {}
    for stream, span in spans.items():
        bars = stream.timeframe.bars_of(span)
        last = stream.timeframe.floor(closed_by)
        if bars is not None and bars.start < last:
            cut[stream] = Span(bars.start, min(bars.end, last))
    return cut


def _tiles(work: Work, spans: dict[BarStream, Span]) -> dict[BarStream, pl.DataFrame]:
    """Return what the ledger knows of each stream's span."""
    if not spans:
        return {}
    names = sorted({str(stream.instrument_id) for stream in spans})
    view = work.table(LEDGER.name).head()
    observed = read_observations(work.store, view, instruments=names)
    known = fold(observed)
    tiles: dict[BarStream, pl.DataFrame] = {}
    for span in dict.fromkeys(spans.values()):
        streams = {each.key: each for each, its in spans.items() if its == span}
        tiled = tiling(known, list(streams), span)
        parts = tiled.partition_by(STREAM, as_dict=True, maintain_order=True)
        tiles |= {streams[key]: part for key, part in parts.items()}
    return {stream: tiles[stream] for stream in spans}


def _to_ask(
    work: Work,
    timeframe: Timeframe,
    tiles: pl.DataFrame,
    *,
    recheck: bool,
    recheck_since: datetime | None,
) -> list[Span]:
    missing = timedelta(hours=work.settings.recheck_hours)
    now = work.clock.known()
    if recheck_since is None:
        return spans_to_ask(tiles, timeframe, now=now, recheck_missing=missing, everything=recheck)
    end = tiles["span_end"][-1]
    wanted = spans_to_ask(tiles, timeframe, now=now, recheck_missing=missing)
    since = max(tiles["span_start"][0], timeframe.floor(recheck_since))
    kept = [Span(each.start, min(each.end, since)) for each in wanted if each.start < since]
    return [*kept, Span(since, end)] if since < end else kept


async def _probe(
    work: Work,
    adapter: VenueAdapter,
    wanted: dict[BarStream, list[Span]],
    tiles: dict[BarStream, pl.DataFrame],
    report: IngestReport,
) -> _Plan:
    """Ask for the first bar of streams of whose beginning nothing is known yet.

    What lies before the first bar is ``unlisted`` and is not asked for page by page.
    """
    plan = _Plan()
    unsure = [
        stream
        for stream, todo in wanted.items()
        if todo and _begins_unknown(tiles[stream], todo[0])
    ]
    answers = await asyncio.gather(
        *(probe(adapter, stream) for stream in unsure), return_exceptions=True
    )
    responses, observed = [], []
    for stream, answer in zip(unsure, answers, strict=True):
        told = _fatal_alone(answer)
        responses += told.responses
        if not isinstance(told.listed_at, datetime):
            fail(work, report, stream, told.listed_at)
            wanted[stream] = []
            continue
        plan.listed_at[stream] = told.listed_at
        wanted[stream], before = _after_listing(wanted[stream], told.listed_at)
        evidence = f"response {told.responses[0].response_id}"
        unlisted = [Observation(span, State.UNLISTED, evidence) for span in before]
        observed.append((stream, unlisted))
    await land(work, responses)
    await write_ledger(work, observed)
    plan.wanted = [(stream, todo) for stream, todo in wanted.items() if todo]
    return plan


def _fatal_alone(answer: Probed | BaseException) -> Probed:
    """Let an error that speaks of one stream alone be its answer; others end the run."""
    if isinstance(answer, Probed):
        return answer
    if isinstance(answer, VenueError) and not answer.retryable:
        return Probed(answer)
    raise answer


def _begins_unknown(tiles: pl.DataFrame, first: Span) -> bool:
    """Tell whether no bar is known of at or before the first span that is to be asked."""
    before = tiles.filter(pl.col("span_start") <= time_lit(first.start))
    return before["state"].is_in([State.UNFETCHED.value, State.UNLISTED.value]).all()


def _after_listing(asked: list[Span], opened: datetime) -> tuple[list[Span], list[Span]]:
    """Split spans at the first bar."""
    after = [Span(max(each.start, opened), each.end) for each in asked if each.end > opened]
    before = [Span(each.start, min(each.end, opened)) for each in asked if each.start < opened]
    return after, before
