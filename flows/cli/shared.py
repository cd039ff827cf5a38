"""What the commands that write share: settings, the work of a repair, summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from contracts.tables import LEDGER, State
from contracts.time import Span
from flows.cli.say import complain, say
from flows.work import open_work, standing_clock
from lake.ledger import fold, read_observations, runs
from lake.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.ingest import IngestReport
    from flows.work import Work
    from lake.settings import Settings

_SPANS_SHOWN = 6


def opened_for_repair(root: str, settings: Settings) -> Work:
    """Open a lake for a run that asks nobody."""
    clock = standing_clock(Store(root))
    return open_work(root, clock=clock, origin=None, settings=settings)


def records(report: IngestReport) -> pl.DataFrame:
    """Return what a run did, one row per stream."""
    rows = [
        (
            str(stream),
            done.pages,
            done.rows,
            done.quarantined,
            None if done.failure is None else done.failure.code,
        )
        for stream, done in report.streams.items()
    ]
    schema = {
        "stream": pl.String(),
        "pages": pl.Int64(),
        "rows": pl.Int64(),
        "quarantined": pl.Int64(),
        "failure": pl.String(),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def summary(work: Work, report: IngestReport, span: Span | None) -> Iterator[str]:
    """Yield the lines that say what a run did and what is still not there."""
    counts = report.counts()
    yield (
        f"bars: {counts['new']:,} new, {counts['revised']:,} revised, "
        f"{counts['identical']:,} identical, {counts['quarantined']:,} quarantined; "
        f"{counts['streams']} streams, {counts['failed']} failed"
    )
    unsound = _unsound(work, report, span)
    for row in unsound.head(_SPANS_SHOWN).iter_rows(named=True):
        where = Span(row["span_start"], row["span_end"])
        yield f"{row['state']}: {row['instrument_id']} {row['timeframe']} {where}"
    if unsound.height > _SPANS_SHOWN:
        yield f"and {unsound.height - _SPANS_SHOWN} more spans: lake ledger --root {work.store.uri}"


def _unsound(work: Work, report: IngestReport, span: Span | None) -> pl.DataFrame:
    """Return the spans of the run's streams that are missing or quarantined, as runs."""
    keys = [stream.key for stream in report.streams]
    names = sorted({key[0] for key in keys})
    view = work.table(LEDGER.name).head()
    if view.version < 0 or not names:
        return LEDGER.empty()
    found = runs(fold(read_observations(work.store, view, instruments=names, span=span)))
    wanted = pl.struct("instrument_id", "timeframe").is_in(
        [{"instrument_id": key[0], "timeframe": key[2]} for key in keys]
    )
    return found.filter(wanted, pl.col("state").is_in([State.MISSING, State.QUARANTINED]))


def failed_summary(report: IngestReport) -> int:
    """Say which streams failed, and return the exit code."""
    failed = [(each.stream, each.failure) for each in report.streams.values() if each.failure]
    for stream, failure in failed[1:]:
        say(f"failed: {stream}: {failure.message} [{failure.code}]")
    if failed:
        say(f"failed: {failed[0][0]}, {len(failed)} of {len(report.streams)} streams in all")
        gravest = max((failure for _, failure in failed), key=lambda each: each.exit_code)
        complain(gravest)
    return report.exit_code
