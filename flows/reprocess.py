"""Reprocess: walk landed answers along the path again, without asking anybody.

After a parser was mended, or to release a batch that tripped. Where the same span was
answered several times, the newest sound answer is the authority for it: an old answer never
undoes a revision, and an error page never hides a sound one. What an answer lacks proves
nothing here, so the ledger learns of bars, not of holes; holes stay to be asked.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import PayloadError, UnknownStreamError
from contracts.names import CanonicalId, InstrumentId, Timeframe
from contracts.spec import time_lit
from contracts.tables import RESPONSES
from contracts.time import Span, from_micros, to_micros
from flows.audit import Audited, audit
from flows.batches import BarStream
from flows.conform import conform
from flows.ingest import IngestReport, Terms, store_judged
from flows.reference import current_instruments
from flows.runs import recorded_run
from flows.venues import open_venue
from lake.bitemporal import paint
from lake.landing import landed_index, load_responses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contracts.names import Venue
    from contracts.response import Response
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
        terms = Terms(
            work.clock.known(), accept_quarantine=accept_quarantine, speaks_of_holes=False
        )
        for stream, layers in chosen.items():
            report.of(stream)
            await _stream(work, adapter, stream, layers, terms=terms, report=report)
        detail.update(report.counts())
    return report


_Layer = tuple[int, int, str]


def _landed_streams(work: Work, adapter: VenueAdapter) -> dict[tuple[str, Timeframe], list[_Layer]]:
    """Return, by venue symbol and timeframe, the answers in the order in which they came."""
    view = work.table(RESPONSES.name).head()
    index = landed_index(
        work.store, view, venue=adapter.venue.value, endpoint=adapter.bars_endpoint
    ).filter(pl.col("status") == 200)
    layers: dict[tuple[str, Timeframe], list[_Layer]] = {}
    for params, response_id in index.select("params", "response_id").iter_rows():
        asked = adapter.asked_bars(json.loads(params))
        if asked is not None:
            layer = (to_micros(asked.span.start), to_micros(asked.span.end), response_id)
            layers.setdefault((asked.venue_symbol, asked.timeframe), []).append(layer)
    return layers


def _chosen(
    work: Work,
    adapter: VenueAdapter,
    streams: dict[tuple[str, Timeframe], list[_Layer]],
    symbols: Sequence[str] | None,
    timeframes: Sequence[Timeframe] | None,
) -> dict[BarStream, list[_Layer]]:
    listed = current_instruments(work, adapter.venue.value)
    ids = dict(listed.select("venue_symbol", "instrument_id").iter_rows())
    wanted = None if symbols is None else {str(CanonicalId.parse(each)) for each in symbols}
    chosen: dict[BarStream, list[_Layer]] = {}
    for (symbol, timeframe), layers in sorted(streams.items(), key=lambda item: str(item[0])):
        if symbol not in ids or (timeframes is not None and timeframe not in timeframes):
            continue
        instrument = InstrumentId.parse(ids[symbol])
        if wanted is None or str(instrument.canonical_id) in wanted:
            chosen[BarStream(instrument, symbol, timeframe)] = layers
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
    layers: list[_Layer],
    *,
    terms: Terms,
    report: IngestReport,
) -> None:
    sound = await _sound(work, adapter, stream, layers, report)
    answers = [
        _Authority(Span(from_micros(start), from_micros(end)), response_id)
        for start, end, response_id in paint(sound)
    ]
    size = work.settings.batch_pages
    work.progress.plan(str(stream), len(answers))
    for start in range(0, len(answers), size):
        batch = answers[start : start + size]
        judged: list[tuple[Audited, Mapping[Span, str]]] = [
            (await _judged(work, adapter, stream, run), {}) for run in _adjacent(batch)
        ]
        await store_judged(work, judged, terms=terms, report=report)
        done = report.of(stream)
        done.pages += len(batch)
        work.progress.advance(str(stream), len(batch), done.rows)
        if done.failure is not None:
            return


async def _sound(
    work: Work,
    adapter: VenueAdapter,
    stream: BarStream,
    layers: list[_Layer],
    report: IngestReport,
) -> list[_Layer]:
    """Leave out answers that are no pages; where none is left the stream has failed."""
    unsound: dict[str, PayloadError] = {}
    size = work.settings.batch_pages
    for start in range(0, len(layers), size):
        ids = [response_id for _, _, response_id in layers[start : start + size]]
        for response in (await _load(work, adapter, ids)).values():
            try:
                await conform(adapter, stream, [response])
            except PayloadError as failure:
                unsound[response.response_id] = failure
    if unsound:
        work.progress.note(f"{stream}: {len(unsound)} landed answers are no pages; passed over")
    sound = [layer for layer in layers if layer[2] not in unsound]
    if not sound and unsound:
        report.of(stream).failure = next(iter(unsound.values()))
    return sound


async def _load(
    work: Work, adapter: VenueAdapter, response_ids: Sequence[str]
) -> dict[str, Response]:
    view = work.table(RESPONSES.name).head()
    venue = adapter.venue.value
    found = await asyncio.to_thread(
        load_responses, work.store, view, venue=venue, response_ids=response_ids
    )
    return {each.response_id: each for each in found}


def _adjacent(answers: Sequence[_Authority]) -> list[list[_Authority]]:
    """Gather answers whose spans touch: they are judged as the one ask that they were."""
    runs: list[list[_Authority]] = []
    for answer in answers:
        if runs and runs[-1][-1].span.end == answer.span.start:
            runs[-1].append(answer)
        else:
            runs.append([answer])
    return runs


async def _judged(
    work: Work, adapter: VenueAdapter, stream: BarStream, run: Sequence[_Authority]
) -> Audited:
    responses = await _load(work, adapter, [answer.response_id for answer in run])
    frames = []
    for answer in run:
        response = responses[answer.response_id]
        candidates = await conform(adapter, stream, [response])
        whole = adapter.asked_bars(response.params)
        if whole is not None and whole.span != answer.span:
            start, end = time_lit(answer.span.start), time_lit(answer.span.end)
            candidates = candidates.filter(pl.col("open_time").is_between(start, end, "left"))
        frames.append(candidates)
    span = Span(run[0].span.start, run[-1].span.end)
    return await audit(stream, span, pl.concat(frames))
