"""ops.quarantine: rows that an audit refused, with every reason."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

QUARANTINE = TableSpec(
    name="ops.quarantine",
    grain="one refused row",
    columns=(
        Column("quarantine_id", pl.String(), "SHA-256 over table, key and content of the row.",
               statistics=True),
        Column("table_name", pl.String(), "The table that the row was meant for."),
        Column("venue", pl.String(), "The venue."),
        Column("instrument_id", pl.String(), "The instrument at its venue.", statistics=True),
        Column("timeframe", pl.String(), "Length of the bar; null for other streams.",
               nullable=True),
        Column("event_time", Time, "Time of the row on the valid axis; null when unreadable.",
               nullable=True),
        Column("reasons", pl.List(pl.String()), "Every audit that refused it."),
        Column("row", pl.String(), "The refused row as JSON."),
        Column("source", pl.String(), "Where the row came from."),
        Column("run_id", pl.String(), "The run that refused it."),
        Column("known_from", Time, "When it was refused.", statistics=True),
    ),
    key=("quarantine_id",),
    partition_by=("venue",),
    sort_by=("instrument_id", "event_time", "quarantine_id"),
    row_group_rows=4_096,
)  # fmt: skip
