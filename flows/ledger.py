"""Ledger: say what is now known of every span that was asked for.

Takes verdicts and what the venue said of holes, gives observations; one commit to
ops.ledger, after the data it speaks of.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import UnknownStreamError
from contracts.tables import LEDGER, State
from contracts.time import Span
from lake.ledger import Observation, observations_frame, record
from lake.reader import BarsQuery, read_bars
from quality.gaps import runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from flows.audit import Audited
    from flows.batches import BarStream
    from flows.work import Work


async def write_ledger(
    work: Work,
    observed: Sequence[tuple[BarStream, Sequence[Observation]]],
    *,
    source: str = "rest",
    not_before: datetime | None = None,
) -> int:
    """Record observations of streams of one venue; return the number of rows added.

    Args:
        work: The run.
        observed: What was learnt, stream by stream.
        source: Who says so.
        not_before: Knowledge time of the bars that the observations speak of: the ledger
            never claims a bar earlier than the bar itself is known.
    """
    known = max(work.clock.known(), not_before or work.clock.known())
    frames = [
        observations_frame(
            observations,
            instrument_id=str(stream.instrument_id),
            venue=stream.instrument_id.venue.value,
            timeframe=stream.timeframe.code,
            source=source,
            known_from=known,
        )
        for stream, observations in observed
        if observations
    ]
    if not frames:
        return 0
    return await asyncio.to_thread(record, work.table(LEDGER.name), pl.concat(frames), known=known)


def holes_of(audited: Audited, stored: pl.Series | None = None) -> list[Span]:
    """Return the spans of an ask in which no bar, good, bad or stored before, opens."""
    known = [_times(audited.verdict.good, audited), _times(audited.verdict.bad, audited)]
    every = pl.concat(known if stored is None else [*known, stored])
    return runs(every, audited.stream.timeframe, audited.span)[1]


async def stored_before(work: Work, audited: Audited) -> pl.Series:
    """Return where bars are stored that the answer lacks or that an audit refused.

    A bar that the venue gave once is kept, and stays ``present``, when a later answer leaves
    it out or brings it broken.
    """
    nothing = audited.verdict.good["open_time"].clear()
    doubtful = [*holes_of(audited), *_runs(audited.verdict.bad, audited)]
    if not doubtful:
        return nothing
    query = BarsQuery(
        (str(audited.stream.instrument_id),),
        audited.stream.timeframe,
        start=min(span.start for span in doubtful),
        end=max(span.end for span in doubtful),
        columns=("open_time",),
    )
    try:
        rows = await asyncio.to_thread(lambda: read_bars(work.tables, query).collect())
    except UnknownStreamError:
        return nothing
    return rows["open_time"]


def observations_of(
    audited: Audited,
    *,
    evidence: Mapping[Span, str],
    server_time: datetime,
    pending: timedelta,
    listed_at: datetime | None = None,
    stored: pl.Series | None = None,
) -> list[Observation]:
    """Return what one ask has shown.

    Args:
        audited: The ask's verdict; it did not trip.
        evidence: For confirmed holes, what confirms them.
        server_time: The venue's time.
        pending: Bars that closed less than this ago and are not there are ``pending``.
        listed_at: The stream's first bar, where it is known; holes before are ``unlisted``.
        stored: Bars that were stored before, as ``stored_before`` gives them.
    """
    timeframe = audited.stream.timeframe
    span, verdict = audited.span, audited.verdict
    good = _times(verdict.good, audited)
    there = good if stored is None else pl.concat([good, stored])
    present = runs(there, timeframe, span)[0]
    found = [Observation(each, State.PRESENT) for each in present]
    refused = f"{verdict.bad.height} rows in ops.quarantine"
    found += [Observation(each, State.QUARANTINED, refused) for each in _runs(verdict.bad, audited)]
    fresh_from = timeframe.ceil(server_time - pending - timeframe.duration)
    for hole in holes_of(audited, stored):
        asked = (told for each, told in evidence.items() if each.intersection(hole) == hole)
        reason = next(asked, "absent from the page; not asked about one by one")
        for part, state in _classified(hole, fresh_from, listed_at, tail=hole.end == span.end):
            found.append(Observation(part, state, reason))
    return found


def _classified(
    hole: Span, fresh_from: datetime, listed_at: datetime | None, *, tail: bool
) -> list[tuple[Span, State]]:
    parts: list[tuple[Span, State]] = []
    start = hole.start
    if listed_at is not None and start < listed_at:
        unlisted = Span(start, min(hole.end, listed_at))
        parts.append((unlisted, State.UNLISTED))
        start = unlisted.end
    boundary = min(max(start, fresh_from), hole.end) if tail else hole.end
    if start < boundary:
        parts.append((Span(start, boundary), State.MISSING))
    if boundary < hole.end:
        parts.append((Span(max(start, boundary), hole.end), State.PENDING))
    return parts


def _runs(rows: pl.DataFrame, audited: Audited) -> list[Span]:
    return runs(_times(rows, audited), audited.stream.timeframe, audited.span)[0]


def _times(rows: pl.DataFrame, audited: Audited) -> pl.Series:
    """Return the places of bars on the grid; a row off it stands in the bar it falls into."""
    micros = rows["open_time"].drop_nulls().to_physical()
    step = audited.stream.timeframe.micros
    return (micros - micros % step).cast(rows["open_time"].dtype)
