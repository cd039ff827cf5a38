"""ops.deletions: every object that maintenance deleted, and why; no member of a snapshot."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

DELETIONS = TableSpec(
    name="ops.deletions",
    grain="one object that a run of maintenance set out to delete",
    columns=(
        Column("run_id", pl.String(), "The run that deleted it.", statistics=True),
        Column("month", pl.String(), "UTC month of known_from, as YYYY-MM."),
        Column("table_name", pl.String(), "Table whose folder held it; the empty text: none."),
        Column("path", pl.String(), "Path below the lake's root.", statistics=True),
        Column("size_bytes", pl.Int64(), "Its size.", unit="bytes"),
        Column("rows", pl.Int64(), "Rows of a data file, where its footer said.", nullable=True),
        Column("reason", pl.String(), "unreachable, retention, leftover or lease."),
        Column("detail", pl.String(), "What spoke for the deletion.", nullable=True),
        Column("deleted_at", Time, "Real time; the row is written just before.", statistics=True),
        Column("code_version", pl.String(), "Version of Tidemark."),
        Column("known_from", Time, "Known time of the run.", statistics=True),
    ),
    key=("run_id", "path"),
    partition_by=("month",),
    sort_by=("deleted_at", "path"),
    row_group_rows=4_096,
)
