"""silver.instruments: the rules of trading, as each was observed."""

from __future__ import annotations

import polars as pl

from contracts.spec import Column, Rule, TableSpec, Time

INSTRUMENTS = TableSpec(
    name="silver.instruments",
    grain="one version of the rules of one instrument",
    columns=(
        Column("instrument_id", pl.String(), "The instrument at its venue.", statistics=True),
        Column("canonical_id", pl.String(), "The venue-free name."),
        Column("venue", pl.String(), "The venue."),
        Column("market_type", pl.String(), "spot, perp, future or option.", value=True),
        Column("venue_symbol", pl.String(), "The venue's own spelling.", value=True),
        Column("listing", pl.Int32(), "Listing number under the same name, from 1."),
        Column("base", pl.String(), "Base asset.", value=True),
        Column("quote", pl.String(), "Quote asset.", value=True),
        Column("settle", pl.String(), "Settlement asset; null for spot.", nullable=True,
               value=True),
        Column("tick_size", Rule, "Price step; null when not stated.", unit="quote per base",
               nullable=True, value=True),
        Column("lot_size", Rule, "Amount step; null when not stated.", unit="base",
               nullable=True, value=True),
        Column("min_notional", Rule, "Least value of an order; null when not stated.",
               unit="quote", nullable=True, value=True),
        Column("contract_size", Rule, "Base amount of one contract; 1 for spot.", unit="base",
               value=True),
        Column("status", pl.String(), "trading, halted, pending, delisted or unknown.",
               value=True),
        Column("venue_status", pl.String(), "The venue's own word.", value=True),
        Column("listed_at", Time, "Listing time; null when the venue states none.",
               nullable=True, value=True),
        Column("expiry", Time, "Expiry; null for spot and perpetuals.", nullable=True,
               value=True),
        Column("funding_interval_hours", pl.Int32(), "Hours between fundings; null when not "
               "stated or not a perpetual.", unit="hours", nullable=True, value=True),
        Column("valid_from", Time, "When the rules were first seen in force.", statistics=True),
        Column("valid_to", Time, "When they ceased; null until further notice.",
               nullable=True),
        Column("response_id", pl.String(), "The raw response that says so."),
        Column("known_from", Time, "When the lake learnt it.", statistics=True),
    ),
    key=("instrument_id", "valid_from", "known_from"),
    partition_by=("venue",),
    sort_by=("instrument_id", "valid_from", "known_from"),
    row_group_rows=4_096,
)  # fmt: skip
