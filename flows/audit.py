"""Audit: let good rows pass, quarantine bad ones with every reason, trip when too many.

Takes a candidate frame, gives a verdict; bad rows go to ops.quarantine, what was checked to
ops.audits. An ask that trips the breaker is not published, nor is any later one of its stream.
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
from quality.breaker import Breaker, blocked_by
from quality.quarantine import audit_rows, quarantine_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.time import Span
    from flows.batches import BarStream
    from flows.work import Work
    from quality.audit import Verdict


@dataclass(eq=False)
class Audited:
    """The verdict on one ask.

    Attributes:
        stream: The stream.
        span: What was asked for.
        verdict: What the audits found.
        why: Why the breaker tripped on it, or None.
        tripped: The error for it; None also where good rows are published all the same.
    """

    stream: BarStream
    span: Span
    verdict: Verdict
    why: str | None = None
    tripped: AuditError | None = None


async def audit(stream: BarStream, span: Span, candidates: pl.DataFrame) -> Audited:
    """Judge what came back of one ask; ``weigh`` decides what that means for its stream."""
    verdict = await asyncio.to_thread(
        audit_bars, candidates, asked=span, timeframe=stream.timeframe
    )
    return Audited(stream, span, verdict)


def weigh(work: Work, audited: Sequence[Audited], *, accept: bool = False) -> list[Audited]:
    """Let the breaker judge ask after ask; return those that are to be stored.

    An ask that trips is stored as tripped: its verdict, not its bars. Later asks of its
    stream are left out altogether, and stay to be asked. An ask is cut by its span alone, so
    a run that was killed and resumed comes to the same verdicts as one that was not.

    Args:
        work: The run.
        audited: The asks of a batch, those of a stream in order of time.
        accept: Publish the good rows even where the breaker trips on many bad ones.
    """
    breaker = Breaker(work.settings.breaker_share, work.settings.breaker_rows)
    ended: set[BarStream] = set()
    kept = []
    for each in audited:
        if each.stream in ended:
            continue
        blocked = blocked_by(each.verdict)
        each.why = breaker.trips(each.verdict)
        each.tripped = None
        if each.why is not None and (blocked or not accept):
            each.tripped = _tripped(each, each.why)
            ended.add(each.stream)
        kept.append(each)
    return kept


def _tripped(audited: Audited, why: str) -> AuditError:
    return AuditError(
        f"{audited.stream} {audited.span}: not published, {why}",
        remedy="Read `lake scan ops.quarantine`; release good rows with --accept-quarantine, "
        "or mend the parser and run `lake conform --from-bronze`",
        stream=str(audited.stream),
    )


async def record_audits(work: Work, audited: Sequence[Audited]) -> None:
    """Store the refused rows and the audits of a batch: one commit each, if any."""
    known = work.clock.known()
    refused, checked = [], []
    for each in audited:
        refused.append(
            quarantine_rows(each.verdict.bad, table=BARS, run_id=work.run_id, known_from=known)
        )
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
                tripped=each.why,
                released=each.why is not None and each.tripped is None,
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
