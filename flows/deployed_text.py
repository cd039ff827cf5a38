"""What a deployed run did, as Markdown for its artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from contracts.tables import LEDGER
from lake.ledger import fold, read_observations, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contracts.errors import TidemarkError
    from flows.ingest import IngestReport, StreamReport
    from flows.maintain import MaintainReport
    from flows.work import Work
    from lake.manifest import Manifest

MOST_STREAMS = 200


def report_text(work: Work, report: IngestReport, *, attempt: int) -> str:
    """Return what a run did: sums, streams (failed ones first), what the ledger knows."""
    ordered = sorted(report.streams.values(), key=lambda each: each.failure is None)
    shown = ordered[:MOST_STREAMS]
    lines = [*_head(work, attempt), *_table(["count", ""], report.counts().items())]
    lines += ["", "## Streams", "", *_streams(shown)]
    if len(ordered) > len(shown):
        lines += ["", f"{len(ordered) - len(shown)} more streams are not shown."]
    lines += ["", "## Ledger", "", *_ledger(work, shown)]
    return "\n".join(lines)


def failure_text(work: Work, error: TidemarkError, *, attempt: int) -> str:
    """Return why a run ended before it could report."""
    again = "yes" if error.retryable else "no"
    rows = [("error", type(error).__name__), ("code", error.code), ("retryable", again)]
    lines = [*_head(work, attempt), *_table(["failed", ""], rows)]
    return "\n".join([*lines, "", str(error), "", "What was stored before stays."])


def snapshot_text(manifest: Manifest, label: str | None = None) -> str:
    """Return what a snapshot pins."""
    rows = [
        (name, told["version"], f"{told['rows']:,}", len(told["files"]))
        for name, told in sorted(manifest.tables.items())
    ]
    lines = [
        f"# {manifest.snapshot_id}",
        "",
        f"Label: {label or 'none'}. Lake: {manifest.beside['lake_id']}.",
    ]
    return "\n".join([*lines, "", *_table(["table", "version", "rows", "files"], rows)])


def maintain_text(report: MaintainReport) -> str:
    """Return what a maintenance did, or would do."""
    title = "# Maintenance" if report.applied else "# Maintenance, a dry run"
    rows = [
        (each.part, each.table_name, each.place, each.files, f"{each.size_bytes:,}", each.reason)
        for each in report.actions
    ]
    names = ["part", "table", "place", "files", "bytes", "reason"]
    return "\n".join([title, "", *_table(names, rows), "", *(f"- {each}" for each in report.notes)])


def _head(work: Work, attempt: int) -> list[str]:
    return [f"# Run {work.run_id}", "", f"Lake: `{work.store.uri}`. Attempt: {attempt}.", ""]


def _streams(shown: Iterable[StreamReport]) -> list[str]:
    rows = [
        (each.stream, each.pages, f"{each.rows:,}", each.quarantined, _failure(each.failure))
        for each in shown
    ]
    return _table(["stream", "pages", "bars", "quarantined", "failure"], rows)


def _failure(failure: TidemarkError | None) -> str:
    return "" if failure is None else f"{type(failure).__name__} ({failure.code}): {failure}"


def _ledger(work: Work, shown: Sequence[StreamReport]) -> list[str]:
    """Return the spans and hours in each state, of all that is known of the streams."""
    keys = [each.stream.key for each in shown]
    schema = dict.fromkeys(("instrument_id", "kind", "timeframe"), pl.String)
    wanted = pl.DataFrame(keys, schema=schema, orient="row")
    names = wanted["instrument_id"].unique().to_list()
    observed = read_observations(work.store, work.table(LEDGER.name).head(), instruments=names)
    known = runs(fold(observed.join(wanted, on=list(schema), how="semi")))
    length = (pl.col("span_end") - pl.col("span_start")).dt.total_seconds() / 3600
    summary = (
        known.group_by("instrument_id", "timeframe", "state")
        .agg(spans=pl.len(), hours=length.sum().round(2), until=pl.col("span_end").max())
        .sort("instrument_id", "timeframe", "state")
        .with_columns(pl.col("until").dt.strftime("%Y-%m-%dT%H:%MZ"))
    )
    return _table(["instrument", "timeframe", "state", "spans", "hours", "until"], summary.rows())


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    head = f"| {' | '.join(names)} |"
    return [head, "|" + " --- |" * len(names), *(f"| {_cells(row)} |" for row in rows)]


def _cells(row: Sequence[object]) -> str:
    return " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in row)
