"""Ingest: walk batches along the path, one commit per step and batch.

fetch -> land -> conform -> confirm holes -> audit -> publish -> ledger. While a batch is being
stored, the next one is already being fetched. A batch counts only when the ledger says so;
a run that dies before asks for it again, and finds most of it there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from contracts.errors import PayloadError, TidemarkError, VenueError
from flows.audit import Audited, audit, record_audits
from flows.batches import BarStream, Batch
from flows.conform import conform
from flows.fetch import Fetched, confirm_holes, fetch_again, fetch_batch
from flows.land import land
from flows.ledger import holes_of, observations_of, write_ledger
from flows.publish import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from contracts.response import Response
    from contracts.time import Span
    from flows.batches import Ask
    from flows.venues.base import VenueAdapter
    from flows.work import Work
    from lake.ledger import Observation


@dataclass
class StreamReport:
    """What a run did for one stream."""

    stream: BarStream
    pages: int = 0
    rows: int = 0
    quarantined: int = 0
    missing_seconds: int = 0
    failure: TidemarkError | None = None


@dataclass
class IngestReport:
    """What a run did: counts over all streams, and each stream's own.

    Attributes:
        new: Bars appended.
        revised: Bars replaced by another version.
        identical: Bars that were stored already.
        streams: By stream, in the order of the run.
    """

    new: int = 0
    revised: int = 0
    identical: int = 0
    streams: dict[BarStream, StreamReport] = field(default_factory=dict)

    def of(self, stream: BarStream) -> StreamReport:
        """Return the report of a stream, begun if need be."""
        return self.streams.setdefault(stream, StreamReport(stream))

    @property
    def failures(self) -> list[TidemarkError]:
        """The errors that ended streams."""
        return [each.failure for each in self.streams.values() if each.failure is not None]

    @property
    def exit_code(self) -> int:
        """0, or that of the first failure of the gravest class."""
        return max((failure.exit_code for failure in self.failures), default=0)

    def counts(self) -> dict[str, int]:
        """Return the sums for ops.runs and for people."""
        every = self.streams.values()
        return {
            "streams": len(self.streams),
            "failed": len(self.failures),
            "pages": sum(each.pages for each in every),
            "new": self.new,
            "revised": self.revised,
            "identical": self.identical,
            "quarantined": sum(each.quarantined for each in every),
        }


@dataclass(frozen=True)
class Terms:
    """What holds for a whole run.

    Attributes:
        server_time: The venue's time when the run began; it decides what is closed.
        listed_at: First bar of streams, where the venue was asked for it.
        accept_quarantine: Publish good rows even where the breaker trips on bad ones.
    """

    server_time: datetime
    listed_at: Mapping[BarStream, datetime] = field(default_factory=dict)
    accept_quarantine: bool = False


async def ingest(
    work: Work,
    adapter: VenueAdapter,
    batches: Iterable[Batch],
    *,
    terms: Terms,
    report: IngestReport,
) -> IngestReport:
    """Take batches of one venue along the path.

    A stream that fails is left out of the rest of the run; the others go on.

    Raises:
        VenueUnavailableError: The venue is down; what was stored stays.
        StorageError: The store failed; what was committed stays.
    """
    todo = iter(batches)
    upcoming = _start(adapter, todo, report)
    try:
        while upcoming is not None:
            batch, fetching = upcoming
            upcoming = None
            fetched = await fetching
            upcoming = _start(adapter, todo, report)
            await _store(work, adapter, fetched, terms, report)
            for ask in batch.asks:
                pages = len(ask.pages)
                done = report.of(ask.stream)
                done.pages += pages
                work.progress.advance(str(ask.stream), pages, done.rows)
    finally:
        if upcoming is not None:
            upcoming[1].cancel()
            await asyncio.gather(upcoming[1], return_exceptions=True)
        await land(work, [])
    return report


def _start(
    adapter: VenueAdapter, todo: Iterator[Batch], report: IngestReport
) -> tuple[Batch, asyncio.Task[list[Fetched]]] | None:
    for batch in todo:
        asks = tuple(ask for ask in batch.asks if report.of(ask.stream).failure is None)
        if asks:
            sound = Batch(asks)
            return sound, asyncio.create_task(fetch_batch(adapter, sound))
    return None


async def _store(
    work: Work,
    adapter: VenueAdapter,
    fetched: list[Fetched],
    terms: Terms,
    report: IngestReport,
) -> None:
    """Take one fetched batch from landing to the ledger."""
    for each in fetched:
        if each.failure is not None:
            _fail(work, report, each.ask.stream, each.failure)
    await land(work, [response for each in fetched for response in each.responses])
    judged: list[tuple[Audited, Mapping[Span, str]]] = []
    for each in fetched:
        if each.failure is None and report.of(each.ask.stream).failure is None:
            try:
                judged.append(await _judge(work, adapter, each.ask, each.responses, terms))
            except VenueError as failure:
                if failure.retryable and not isinstance(failure, PayloadError):
                    raise
                _fail(work, report, each.ask.stream, failure)
    await store_judged(work, judged, terms=terms, report=report)


async def store_judged(
    work: Work,
    judged: list[tuple[Audited, Mapping[Span, str]]],
    *,
    terms: Terms,
    report: IngestReport,
    source: str = "rest",
) -> None:
    """Take verdicts with the evidence for their holes through publish to the ledger."""
    audited = [verdict for verdict, _ in judged]
    await record_audits(work, audited, accept=terms.accept_quarantine)
    for each in audited:
        if each.tripped is not None:
            _fail(work, report, each.stream, each.tripped)
        report.of(each.stream).quarantined += each.verdict.bad.height
    passed = [pair for pair in judged if pair[0].tripped is None]
    if not passed:
        return
    published = await publish(work, [verdict for verdict, _ in passed])
    report.new += published.new
    report.revised += published.revised
    report.identical += published.identical
    observed = [(verdict.stream, _observe(work, verdict, held, terms)) for verdict, held in passed]
    await write_ledger(work, observed, source=source)
    for verdict, _ in passed:
        report.of(verdict.stream).rows += verdict.verdict.good.height


def _observe(
    work: Work, verdict: Audited, evidence: Mapping[Span, str], terms: Terms
) -> list[Observation]:
    return observations_of(
        verdict,
        evidence=evidence,
        server_time=terms.server_time,
        pending=timedelta(minutes=work.settings.pending_minutes),
        listed_at=terms.listed_at.get(verdict.stream),
    )


async def _judge(
    work: Work, adapter: VenueAdapter, ask: Ask, responses: list[Response], terms: Terms
) -> tuple[Audited, Mapping[Span, str]]:
    """Conform and audit one ask; ask again for pages that were cut short."""
    pages = list(responses)
    for attempt in range(2):
        candidates = await conform(adapter, ask.stream, pages)
        accept = terms.accept_quarantine
        verdict = await audit(work, ask.stream, ask.span, candidates, accept=accept)
        holes = holes_of(verdict)
        if not holes or verdict.tripped is not None:
            return verdict, {}
        confirmed = await confirm_holes(adapter, ask, _worth_asking(holes, ask, terms))
        if not confirmed.cut_short:
            await land(work, confirmed.responses)
            return verdict, confirmed.evidence
        if attempt == 0:
            again = await fetch_again(adapter, ask, confirmed.cut_short)
            await land(work, [*confirmed.responses, *again])
            replaced = dict.fromkeys(confirmed.cut_short)
            kept = [p for p, page in zip(pages, ask.pages, strict=True) if page not in replaced]
            pages = kept + again
    raise PayloadError(
        f"{ask.stream} {ask.span}: {adapter.venue} leaves out bars that it gives when asked for "
        "them one by one",
        remedy="Nothing of this span was published; run again later",
        stream=str(ask.stream),
    )


def _worth_asking(holes: list[Span], ask: Ask, terms: Terms) -> list[Span]:
    """Leave out holes that lie before the listing: the first bar is their evidence."""
    listed_at = terms.listed_at.get(ask.stream)
    return [hole for hole in holes if listed_at is None or hole.end > listed_at]


def _fail(work: Work, report: IngestReport, stream: BarStream, failure: TidemarkError) -> None:
    report.of(stream).failure = failure
    work.progress.note(f"{type(failure).__name__}: {failure}")
