"""Reprocess: walk landed answers along the path again, without asking anybody.

After a parser was mended, or to release a batch that tripped. Where the same span was
answered several times, the newest sound answer is the authority for it: an old answer never
undoes a revision.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import PayloadError, UnknownStreamError
from contracts.names import CanonicalId, InstrumentId, Timeframe
from contracts.tables import RESPONSES
from contracts.time import Span, from_micros, to_micros
from flows.audit import Audited, audit
from flows.batches import BarStream
from flows.conform import conform
from flows.ingest import IngestReport, Terms, store_judged
from flows.ledger import holes_of
from flows.reference import current_instruments
from flows.runs import recorded_run
from flows.venues import open_venue
from lake.bitemporal import paint
from lake.landing import landed_index, load_responses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contracts.names import Venue
    from flows.venues.base import VenueAdapter
    from flows.work import Work


@dataclass(frozen=True)
class _Authority:
    """A span of a stream, and the landed answer that speaks for it."""

    span: Span
    response_id: str


async def conform_from_bronze(
    work: Work,
    venue: Venue,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe] | None = None,
    accept_quarantine: bool = False,
) -> IngestReport:
    """Conform, audit and publish what was landed, as if it came in now.

    Args:
        work: The run.
        venue: Whose answers.
        symbols: Canonical ids or ccxt symbols; all when None.
        timeframes: All when None.
        accept_quarantine: Publish good rows even where the breaker trips on bad ones.

    Raises:
        UnknownStreamError: Nothing of the kind was landed.
    """
    arguments = {
        "venue": venue.value,
        "symbols": None if symbols is None else list(symbols),
        "timeframes": None if timeframes is None else [str(each) for each in timeframes],
        "accept_quarantine": accept_quarantine,
    }
    async with (
        recorded_run(work, "conform", arguments) as detail,
        open_venue(venue, clock=work.clock) as adapter,
    ):
        streams = await asyncio.to_thread(_landed_streams, work, adapter)
        chosen = _chosen(work, adapter, streams, symbols, timeframes)
        report = IngestReport()
        terms = Terms(work.clock.known(), accept_quarantine=accept_quarantine)
        for stream, answers in chosen.items():
            report.of(stream)
            await _stream(work, adapter, stream, answers, terms=terms, report=report)
        detail.update(report.counts())
    return report


def _landed_streams(
    work: Work, adapter: VenueAdapter
) -> dict[tuple[str, Timeframe], list[_Authority]]:
    """Return, by venue symbol and timeframe, which answer speaks for which span."""
    view = work.table(RESPONSES.name).head()
    index = landed_index(
        work.store, view, venue=adapter.venue.value, endpoint=adapter.bars_endpoint
    ).filter(pl.col("status") == 200)
    layers: dict[tuple[str, Timeframe], list[tuple[int, int, str]]] = {}
    for params, response_id in index.select("params", "response_id").iter_rows():
        asked = adapter.asked_bars(json.loads(params))
        if asked is not None:
            span = (to_micros(asked.span.start), to_micros(asked.span.end), response_id)
            layers.setdefault((asked.venue_symbol, asked.timeframe), []).append(span)
    return {
        key: [
            _Authority(Span(from_micros(start), from_micros(end)), response_id)
            for start, end, response_id in paint(spans)
        ]
        for key, spans in layers.items()
    }


def _chosen(
    work: Work,
    adapter: VenueAdapter,
    streams: dict[tuple[str, Timeframe], list[_Authority]],
    symbols: Sequence[str] | None,
    timeframes: Sequence[Timeframe] | None,
) -> dict[BarStream, list[_Authority]]:
    listed = current_instruments(work, adapter.venue.value)
    ids = dict(listed.select("venue_symbol", "instrument_id").iter_rows())
    wanted = None if symbols is None else {str(CanonicalId.parse(each)) for each in symbols}
    chosen: dict[BarStream, list[_Authority]] = {}
    for (symbol, timeframe), answers in sorted(streams.items(), key=lambda item: str(item[0])):
        if symbol not in ids or (timeframes is not None and timeframe not in timeframes):
            continue
        instrument = InstrumentId.parse(ids[symbol])
        if wanted is None or str(instrument.canonical_id) in wanted:
            chosen[BarStream(instrument, symbol, timeframe)] = answers
    if not chosen:
        raise UnknownStreamError(
            f"No answers of {adapter.venue} for such bars have been landed",
            remedy="Fetch them with `lake backfill`; see `lake ledger` for what there is",
            venue=adapter.venue.value,
        )
    return chosen


async def _stream(
    work: Work,
    adapter: VenueAdapter,
    stream: BarStream,
    answers: list[_Authority],
    *,
    terms: Terms,
    report: IngestReport,
) -> None:
    size = work.settings.batch_pages
    work.progress.plan(str(stream), len(answers))
    for start in range(0, len(answers), size):
        batch = answers[start : start + size]
        await _batch(work, adapter, stream, batch, terms=terms, report=report)
        done = report.of(stream)
        done.pages += len(batch)
        work.progress.advance(str(stream), len(batch), done.rows)
        if done.failure is not None:
            return


async def _batch(
    work: Work,
    adapter: VenueAdapter,
    stream: BarStream,
    answers: list[_Authority],
    *,
    terms: Terms,
    report: IngestReport,
) -> None:
    """Take consecutive answers along the path, run by run of adjacent spans."""
    view = work.table(RESPONSES.name).head()
    responses = {
        each.response_id: each
        for each in await asyncio.to_thread(
            load_responses,
            work.store,
            view,
            venue=adapter.venue.value,
            response_ids=[answer.response_id for answer in answers],
        )
    }
    judged: list[tuple[Audited, Mapping[Span, str]]] = []
    for answer in answers:
        response = responses[answer.response_id]
        try:
            candidates = await conform(adapter, stream, [response])
        except PayloadError as failure:
            report.of(stream).failure = failure
            work.progress.note(f"{type(failure).__name__}: {failure}")
            return
        whole = adapter.asked_bars(response.params)
        inside = pl.col("open_time").is_between(
            pl.lit(answer.span.start), pl.lit(answer.span.end), closed="left"
        )
        if whole is not None and whole.span != answer.span:
            candidates = candidates.filter(inside)
        verdict = await audit(stream, answer.span, candidates)
        held = dict.fromkeys(holes_of(verdict), f"response {answer.response_id}")
        judged.append((verdict, held))
    await store_judged(work, judged, terms=terms, report=report)
