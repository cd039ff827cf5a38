"""Audit: let good rows pass, quarantine bad ones with every reason, trip when too many.

Takes a candidate frame, gives a verdict; bad rows go to ops.quarantine, what was checked to
ops.audits. A batch of one stream that trips the breaker is not published at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import AuditError
from contracts.tables import AUDITS, BARS, QUARANTINE
from lake.appends import append_missing
from quality.bars import audit_bars
from quality.breaker import Breaker
from quality.quarantine import audit_rows, quarantine_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.time import Span
    from flows.batches import BarStream
    from flows.work import Work
    from quality.audit import Verdict


@dataclass
class Audited:
    """The verdict on one ask, and the error if the breaker tripped."""

    stream: BarStream
    span: Span
    verdict: Verdict
    tripped: AuditError | None = None


async def audit(
    work: Work, stream: BarStream, span: Span, candidates: pl.DataFrame, *, accept: bool = False
) -> Audited:
    """Judge one ask.

    Args:
        work: The run.
        stream: The stream.
        span: What was asked for.
        candidates: What came back.
        accept: Publish the good rows even where the breaker trips on many bad ones.
    """
    verdict = await asyncio.to_thread(
        audit_bars, candidates, asked=span, timeframe=stream.timeframe
    )
    breaker = Breaker(work.settings.breaker_share, work.settings.breaker_rows)
    why = breaker.trips(verdict)
    audited = Audited(stream, span, verdict)
    if why is not None and not (accept and not verdict.blocked):
        audited.tripped = AuditError(
            f"{stream} {span}: not published, {why}",
            remedy="Read `lake scan ops.quarantine`; release good rows with --accept-quarantine, "
            "or mend the parser and run `lake conform --from-bronze`",
            stream=str(stream),
        )
    return audited


async def record_audits(work: Work, audited: Sequence[Audited], *, accept: bool = False) -> None:
    """Store the refused rows and the audits of a batch: one commit each, if any."""
    known = work.clock.known()
    breaker = Breaker(work.settings.breaker_share, work.settings.breaker_rows)
    refused, checked = [], []
    for each in audited:
        refused.append(
            quarantine_rows(each.verdict.bad, table=BARS, run_id=work.run_id, known_from=known)
        )
        why = breaker.trips(each.verdict)
        checked.append(
            audit_rows(
                each.verdict,
                table=BARS,
                venue=each.stream.instrument_id.venue.value,
                instrument_id=str(each.stream.instrument_id),
                timeframe=each.stream.timeframe.code,
                span=each.span,
                run_id=work.run_id,
                known_from=known,
                tripped=why,
                released=why is not None and accept and each.tripped is None,
            )
        )
    if not checked:
        return
    venue = audited[0].stream.instrument_id.venue
    await asyncio.to_thread(
        append_missing,
        work.table(QUARANTINE.name),
        pl.concat(refused),
        app=f"quarantine/{venue}",
    )
    await asyncio.to_thread(
        append_missing, work.table(AUDITS.name), pl.concat(checked), app=f"audits/{venue}"
    )
