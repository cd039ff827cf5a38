"""ops.runs: who ran what, when, and how it ended; no member of a snapshot."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

RUNS = TableSpec(
    name="ops.runs",
    grain="one start or one end of a run",
    columns=(
        Column("run_id", pl.String(), "The run.", statistics=True),
        Column("month", pl.String(), "UTC month of known_from, as YYYY-MM."),
        Column("event", pl.String(), "started, succeeded, failed or interrupted."),
        Column("command", pl.String(), "The command or flow."),
        Column("arguments", pl.String(), "Its arguments as canonical JSON; never secrets."),
        Column("detail", pl.String(), "Counts as JSON, or the error.", nullable=True),
        Column("code_version", pl.String(), "Version of Tidemark."),
        Column("recorded_at", Time, "Real time of the event.", statistics=True),
        Column("known_from", Time, "Known time of the event.", statistics=True),
    ),
    key=("run_id", "event"),
    partition_by=("month",),
    sort_by=("recorded_at", "run_id"),
    row_group_rows=4_096,
)  # fmt: skip
