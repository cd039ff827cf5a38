"""bronze.responses: what a venue answered, verbatim."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, TableSpec, Time

RESPONSES = TableSpec(
    name="bronze.responses",
    grain="one HTTP response",
    columns=(
        Column(
            "response_id",
            pl.String(),
            "SHA-256 over venue, endpoint, params, received_at and sha256.",
            statistics=True,
        ),
        Column("venue", pl.String(), "The venue that answered."),
        Column("date", pl.String(), "UTC date of received_at, as YYYY-MM-DD."),
        Column("endpoint", pl.String(), "Method and path of the request.", statistics=True),
        Column("params", pl.String(), "Query parameters as canonical JSON; never secrets."),
        Column("requested_at", Time, "When the request left."),
        Column("received_at", Time, "When the body was complete.", statistics=True),
        Column("status", pl.Int32(), "HTTP status."),
        Column("content_type", pl.String(), "Content-Type header.", nullable=True),
        Column("sha256", pl.String(), "SHA-256 of the body's bytes."),
        Column("size_bytes", pl.Int64(), "Length of the body.", unit="bytes"),
        Column(
            "payload",
            pl.String(),
            "The body; null when an equal body of the same venue and endpoint was stored within "
            "the seven days before.",
            nullable=True,
            bulky=True,
        ),
        Column(
            "payload_encoding",
            pl.String(),
            "utf-8, base64 for a body that is not UTF-8, or elsewhere for a null payload.",
        ),
        Column("run_id", pl.String(), "The run that asked."),
        Column(
            "sequence",
            pl.Int64(),
            "Place in the order in which answers of the venue were landed, from 0; it tells "
            "answers apart that a standing clock received at one moment.",
        ),
    ),
    key=("response_id",),
    partition_by=("venue", "date"),
    sort_by=("received_at", "response_id"),
    known="received_at",
    row_group_rows=256,
    tail_bytes=1 << 20,
    compression="zstd",
    compression_level=1,
)
