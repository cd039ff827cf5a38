"""ops.audits: what was checked, and what came of it."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

AUDITS = TableSpec(
    name="ops.audits",
    grain="one audit of one batch",
    columns=(
        Column("audit_id", pl.String(), "SHA-256 over run, table, stream, span and audit.",
               statistics=True),
        Column("run_id", pl.String(), "The run."),
        Column("table_name", pl.String(), "The table that the batch was meant for."),
        Column("venue", pl.String(), "The venue."),
        Column("instrument_id", pl.String(), "The instrument at its venue.", statistics=True),
        Column("timeframe", pl.String(), "Length of the bar; null for other streams.",
               nullable=True),
        Column("span_start", Time, "Start of the batch's span.", statistics=True),
        Column("span_end", Time, "End of the batch's span, exclusive."),
        Column("audit", pl.String(), "Name of the audit."),
        Column("blocking", pl.Boolean(), "Whether one bad row stops the batch."),
        Column("verdict", pl.String(), "passed, failed, tripped, released or disagreed."),
        Column("rows", pl.Int64(), "Rows of the batch."),
        Column("bad_rows", pl.Int64(), "Rows that the audit refused."),
        Column("detail", pl.String(), "An example or an explanation.", nullable=True),
        Column("known_from", Time, "When the audit ran.", statistics=True),
    ),
    key=("audit_id",),
    partition_by=("venue",),
    sort_by=("known_from", "audit_id"),
    row_group_rows=4_096,
)  # fmt: skip
