"""Publish: bring silver.bars to what the good rows say, keeping what was revised.

Takes verdicts of one venue and timeframe, gives counts; one commit to silver.bars, and one
to silver.bar_revisions before it where rows were revised.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import polars as pl

from contracts.tables import AUDITS, BAR_REVISIONS, BARS
from contracts.time import iso
from contracts.validate import validate
from lake.appends import append_missing, sorted_rows
from lake.versioned import publish_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.audit import Audited
    from flows.work import Work
    from lake.versioned import Published


async def publish(work: Work, audited: Sequence[Audited]) -> Published:
    """Publish the good rows of asks that did not trip.

    Raises:
        ContractError: A row breaks the table's contract after all.
        ClockRegressionError: The clock is behind the table.
        CommitConflictError: The race for the commit was lost too often.
    """
    return await asyncio.to_thread(_publish, work, audited)


def _publish(work: Work, audited: Sequence[Audited]) -> Published:
    frames = [each.verdict.good for each in audited if each.tripped is None]
    candidates = pl.concat(frames) if len(frames) > 1 else frames[0]
    if len(frames) > 1:
        candidates = sorted_rows(BARS, candidates)
    validate(BARS, candidates, without=(BARS.known,))
    published = publish_bars(
        work.table(BARS.name),
        work.table(BAR_REVISIONS.name),
        candidates,
        known=work.clock.known(),
    )
    if not published.refused.is_empty():
        _record_disagreements(work, published.refused)
    return published


def _record_disagreements(work: Work, refused: pl.DataFrame) -> None:
    """Store, per stream, that a lower-ranked source contradicts what stands."""
    known = work.clock.known()
    rows = []
    for group in refused.partition_by("instrument_id", "timeframe", "source", maintain_order=True):
        first = group.row(0, named=True)
        start, end = group["open_time"].min(), group["available_at"].max()
        parts = (work.run_id, first["instrument_id"], first["timeframe"], str(start), str(end))
        rows.append({
            "audit_id": hashlib.sha256("\n".join((*parts, "source_rank")).encode()).hexdigest(),
            "run_id": work.run_id,
            "table_name": BARS.name,
            "venue": first["venue"],
            "instrument_id": first["instrument_id"],
            "timeframe": first["timeframe"],
            "span_start": start,
            "span_end": end,
            "audit": "source_rank",
            "blocking": False,
            "verdict": "disagreed",
            "rows": group.height,
            "bad_rows": group.height,
            "detail": f"{first['source']} contradicts a source of higher rank, first at "
            f"{iso(first['open_time'])}",
            "known_from": known,
        })  # fmt: skip
    frame = pl.DataFrame(rows, schema=AUDITS.schema)
    append_missing(work.table(AUDITS.name), frame, app=f"audits/{frame['venue'][0]}")
