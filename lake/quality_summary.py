"""What a snapshot says of quality, in short: its ledger, audits and quarantine, counted.

The three tables are members of every snapshot, so the state of quality travels with the data;
this reads them when somebody asks. Making a snapshot reads no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.tables import AUDITS, LEDGER, QUARANTINE
from lake.ledger import fold, read_observations
from lake.scan import collect_files, scan_files

if TYPE_CHECKING:
    from lake.manifest import Manifest
    from lake.store import Store
    from lake.tables import View

Counts = list[dict[str, Any]]


def quality_summary(store: Store, manifest: Manifest) -> dict[str, Counts]:
    """Return the counts of a snapshot's ledger, audits and quarantine.

    Shape: ``ledger`` by venue, kind, timeframe and state: instruments, seconds. ``audits`` by
    table, venue, audit and verdict: batches, rows, bad_rows. ``quarantine`` by table, venue
    and reason: rows; a row that has several reasons counts for each.
    """
    counted = {"ledger": (LEDGER, _ledger), "audits": (AUDITS, _audits)}
    counted |= {"quarantine": (QUARANTINE, _quarantine)}
    return {
        name: count(store, manifest.view(spec.name)) if spec.name in manifest.tables else []
        for name, (spec, count) in counted.items()
    }


def _ledger(store: Store, view: View) -> Counts:
    seconds = (pl.col("span_end") - pl.col("span_start")).dt.total_seconds()
    by = ("venue", "kind", "timeframe", "state")
    counts = (
        fold(read_observations(store, view))
        .group_by(by)
        .agg(instruments=pl.col("instrument_id").n_unique(), seconds=seconds.sum())
    )
    return counts.sort(by).to_dicts()


def _audits(store: Store, view: View) -> Counts:
    by = ("table_name", "venue", "audit", "verdict")
    counts = (
        scan_files(store, view.spec, view.files)
        .group_by(by)
        .agg(batches=pl.len(), rows=pl.col("rows").sum(), bad_rows=pl.col("bad_rows").sum())
    )
    return collect_files(store, view.spec, view.files, counts.sort(by)).to_dicts()


def _quarantine(store: Store, view: View) -> Counts:
    by = ("table_name", "venue", "reasons")
    rows = scan_files(store, view.spec, view.files).explode("reasons")
    counts = rows.group_by(by).agg(rows=pl.len()).sort(by)
    return collect_files(store, view.spec, view.files, counts).to_dicts()
