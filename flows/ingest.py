"""Ingest: walk batches along the path, one commit per step and batch.

fetch -> land -> conform -> confirm holes -> audit -> publish -> ledger. While a batch is being
stored, the next one is already being fetched. A batch counts only when the ledger says so;
a run that dies before asks for it again, and finds most of it there.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from contracts.errors import PayloadError, TidemarkError, VenueError
from contracts.tables import State
from flows.audit import Audited, audit, record_audits, weigh
from flows.batches import BarStream, Batch
from flows.conform import conform
from flows.fetch import Fetched, confirm_holes, fetch_again, fetch_batch
from flows.land import land
from flows.ledger import holes_of, observations_of, stored_before, write_ledger
from flows.publish import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        speaks_of_holes: Whether what is absent was asked about, and so means something.
    """

    server_time: datetime
    listed_at: Mapping[BarStream, datetime] = field(default_factory=dict)
    accept_quarantine: bool = False
    speaks_of_holes: bool = True


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
            fail(work, report, each.ask.stream, each.failure)
    await land(work, [response for each in fetched for response in each.responses])
    judged: list[_Judged] = []
    for each in fetched:
        if report.of(each.ask.stream).failure is None:
            with _failing_alone(work, report, each.ask.stream):
                judged.append(await _judge(adapter, each.ask, each.responses))
    weigh(work, [one.verdict for one in judged], accept=terms.accept_quarantine)
    await _confirm(work, adapter, judged, terms, report)
    for one in judged:
        if one.cut_short and report.of(one.ask.stream).failure is None:
            with _failing_alone(work, report, one.ask.stream):
                await _ask_again(work, adapter, one, terms)
    sound = [one for one in judged if report.of(one.ask.stream).failure is None]
    await store_judged(
        work, [(one.verdict, one.evidence) for one in sound], terms=terms, report=report
    )


async def store_judged(
    work: Work,
    judged: Sequence[tuple[Audited, Mapping[Span, str]]],
    *,
    terms: Terms,
    report: IngestReport,
    source: str = "rest",
) -> None:
    """Take verdicts with the evidence for their holes through publish to the ledger."""
    audited = weigh(work, [verdict for verdict, _ in judged], accept=terms.accept_quarantine)
    await record_audits(work, audited)
    for each in audited:
        if each.tripped is not None and report.of(each.stream).failure is None:
            fail(work, report, each.stream, each.tripped)
        report.of(each.stream).quarantined += each.verdict.bad.height
    passed = [pair for pair in judged if pair[0] in audited and pair[0].tripped is None]
    if not passed:
        return
    published = await publish(work, [verdict for verdict, _ in passed])
    report.new += published.new
    report.revised += published.revised
    report.identical += published.identical
    observed = [
        (verdict.stream, await _observe(work, verdict, held, terms)) for verdict, held in passed
    ]
    await write_ledger(work, observed, source=source, not_before=published.known_from)
    for verdict, _ in passed:
        report.of(verdict.stream).rows += verdict.verdict.good.height


async def _observe(
    work: Work, verdict: Audited, evidence: Mapping[Span, str], terms: Terms
) -> list[Observation]:
    """Return what an ask has shown; without the venue's word nothing is said of holes."""
    observed = observations_of(
        verdict,
        evidence=evidence,
        server_time=terms.server_time,
        pending=timedelta(minutes=work.settings.pending_minutes),
        listed_at=terms.listed_at.get(verdict.stream),
        stored=await stored_before(work, verdict),
    )
    if terms.speaks_of_holes:
        return observed
    return [each for each in observed if each.state in (State.PRESENT, State.QUARANTINED)]


@dataclass
class _Judged:
    """An ask with its pages, the verdict on them, and what the venue said of the holes."""

    ask: Ask
    pages: list[Response]
    verdict: Audited
    evidence: Mapping[Span, str] = field(default_factory=dict)
    cut_short: list[Span] = field(default_factory=list)


async def _judge(adapter: VenueAdapter, ask: Ask, pages: list[Response]) -> _Judged:
    candidates = await conform(adapter, ask.stream, pages)
    return _Judged(ask, pages, await audit(ask.stream, ask.span, candidates))


async def _confirm(
    work: Work,
    adapter: VenueAdapter,
    judged: list[_Judged],
    terms: Terms,
    report: IngestReport,
) -> None:
    """Ask the venue about the holes of all asks at once, and land what it says."""
    open_asks = [
        (one, _worth_asking(holes, one.ask, terms))
        for one in judged
        if one.verdict.tripped is None and (holes := holes_of(one.verdict))
    ]
    answers = await asyncio.gather(
        *(confirm_holes(adapter, one.ask, holes) for one, holes in open_asks),
        return_exceptions=True,
    )
    landing: list[Response] = []
    for (one, _), answer in zip(open_asks, answers, strict=True):
        with _failing_alone(work, report, one.ask.stream):
            if isinstance(answer, BaseException):
                raise answer
            landing += answer.responses
            if answer.failure is not None:
                raise answer.failure
            one.evidence, one.cut_short = answer.evidence, answer.cut_short
    await land(work, landing)


async def _ask_again(work: Work, adapter: VenueAdapter, one: _Judged, terms: Terms) -> None:
    """Replace pages that were cut short; a venue that cuts them again has failed."""
    again = await fetch_again(adapter, one.ask, one.cut_short)
    await land(work, again)
    replaced = set(one.cut_short)
    pairs = zip(one.pages, one.ask.pages, strict=True)
    kept = [page for page, span in pairs if span not in replaced]
    second = await _judge(adapter, one.ask, kept + again)
    confirmed = await confirm_holes(
        adapter, one.ask, _worth_asking(holes_of(second.verdict), one.ask, terms)
    )
    await land(work, confirmed.responses)
    if confirmed.failure is not None:
        raise confirmed.failure
    if confirmed.cut_short:
        raise PayloadError(
            f"{one.ask.stream} {one.ask.span}: {adapter.venue} leaves out bars that it gives "
            "when asked for them one by one",
            remedy="Nothing of this span was published; run again later",
            stream=str(one.ask.stream),
        )
    one.verdict, one.evidence, one.cut_short = second.verdict, confirmed.evidence, []


@contextmanager
def _failing_alone(work: Work, report: IngestReport, stream: BarStream) -> Iterator[None]:
    """Let a venue's error end its stream alone, unless the venue as a whole is down."""
    try:
        yield
    except VenueError as failure:
        if failure.retryable and not isinstance(failure, PayloadError):
            raise
        fail(work, report, stream, failure)


def _worth_asking(holes: list[Span], ask: Ask, terms: Terms) -> list[Span]:
    """Leave out holes that lie before the listing: the first bar is their evidence."""
    listed_at = terms.listed_at.get(ask.stream)
    return [hole for hole in holes if listed_at is None or hole.end > listed_at]


def fail(work: Work, report: IngestReport, stream: BarStream, failure: TidemarkError) -> None:
    """Note that a stream has failed; it is left out of the rest of the run."""
    report.of(stream).failure = failure
    work.progress.note(f"{type(failure).__name__}: {failure}")
