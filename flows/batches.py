"""What is asked of a venue: streams, the spans still to be asked, and batches of pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.tables import State
from contracts.time import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    import polars as pl

    from contracts.names import InstrumentId, Timeframe

_ASKED_BY_EVERY_RUN = (State.UNFETCHED, State.PENDING)


@dataclass(frozen=True, slots=True)
class BarStream:
    """The bars of one instrument in one timeframe."""

    instrument_id: InstrumentId
    venue_symbol: str
    timeframe: Timeframe

    @property
    def key(self) -> tuple[str, str, str]:
        """The stream as the ledger names it."""
        return (str(self.instrument_id), "bars", self.timeframe.code)

    def __str__(self) -> str:
        return f"{self.instrument_id} {self.timeframe}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One span of one stream, cut to what one batch holds."""

    stream: BarStream
    span: Span
    pages: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Asks of one venue and one timeframe that travel the path together."""

    asks: tuple[Ask, ...]

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe that all asks share."""
        return self.asks[0].stream.timeframe


def spans_to_ask(
    tiles: pl.DataFrame,
    timeframe: Timeframe,
    *,
    now: datetime,
    recheck_missing: timedelta,
    everything: bool = False,
) -> list[Span]:
    """Return the spans of one stream that a run asks for, merged where they touch.

    Args:
        tiles: The stream's ledger over the wanted span, as ``lake.ledger.tiling`` gives it.
        timeframe: The stream's timeframe; spans lie on its grid.
        now: The known clock's time.
        recheck_missing: Missing spans younger than this are asked again.
        everything: Ask for all of it, whatever the ledger says.
    """
    wanted: list[Span] = []
    rows = tiles.select("span_start", "span_end", "state").iter_rows()
    for start, end, state in rows:
        since = start
        if state == State.MISSING and not everything:
            since = max(start, timeframe.floor(now - recheck_missing))
        elif state not in _ASKED_BY_EVERY_RUN and not everything:
            continue
        if since >= end:
            continue
        if wanted and wanted[-1].end == since:
            wanted[-1] = Span(wanted[-1].start, end)
        else:
            wanted.append(Span(since, end))
    return wanted


def plan_batches(
    wanted: Iterable[tuple[BarStream, Sequence[Span]]], *, page_bars: int, batch_pages: int
) -> Iterator[Batch]:
    """Cut the wanted spans into pages, and gather pages into batches.

    Args:
        wanted: Streams of one venue with their spans.
        page_bars: Bars that a page holds at most.
        batch_pages: Pages that a batch holds at most.
    """
    asks: list[Ask] = []
    room = batch_pages
    for ask in _asks(wanted, page_bars, batch_pages):
        other = bool(asks) and asks[0].stream.timeframe != ask.stream.timeframe
        if asks and (len(ask.pages) > room or other):
            yield Batch(tuple(asks))
            asks, room = [], batch_pages
        asks.append(ask)
        room -= len(ask.pages)
    if asks:
        yield Batch(tuple(asks))


def _asks(
    wanted: Iterable[tuple[BarStream, Sequence[Span]]], page_bars: int, batch_pages: int
) -> Iterator[Ask]:
    """Cut spans into asks that depend on the span alone, not on what travels beside them.

    So a run that resumes where another stopped asks, and judges, the same stretches.
    """
    for stream, spans in wanted:
        step = stream.timeframe.duration * page_bars
        for span in spans:
            for part in span.split(step * batch_pages):
                yield Ask(stream, part, tuple(part.split(step)))
