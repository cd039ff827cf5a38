"""ops.ledger: what is known of each span of each stream, as a log of observations."""

from __future__ import annotations

from enum import StrEnum

import polars as pl

from contracts.spec import Column, TableSpec, Time


class State(StrEnum):
    """What is known of a span of a stream.

    Where two observations of one span were made at the same moment, the one that stands
    later in this list wins.
    """

    UNFETCHED = "unfetched"  # never asked; not stored, the absence of an observation
    PENDING = "pending"  # closed, but not yet published by the venue
    MISSING = "missing"  # asked, answered, not given
    EMPTY = "empty"  # the venue confirms that nothing happened
    OUTAGE = "outage"  # the venue was down, with evidence
    UNLISTED = "unlisted"  # before listing or after delisting
    QUARANTINED = "quarantined"  # given, and refused by an audit
    DERIVED = "derived"  # healed from another source, which is named
    PRESENT = "present"  # stored

    @property
    def rank(self) -> int:
        """Place in the order that breaks ties."""
        return list(State).index(self)


LEDGER = TableSpec(
    name="ops.ledger",
    grain="one observation of one span of one stream",
    columns=(
        Column("instrument_id", pl.String(), "The instrument at its venue.", statistics=True),
        Column("venue", pl.String(), "The venue."),
        Column("kind", pl.String(), "The stream: bars.", statistics=True),
        Column("timeframe", pl.String(), "Length of the bar.", statistics=True),
        Column("span_start", Time, "Start of the span.", statistics=True),
        Column("span_end", Time, "End of the span, exclusive.", statistics=True),
        Column("state", pl.String(), "One of: " + ", ".join(State) + ".", value=True),
        Column("source", pl.String(), "Who says so: rest, archive, stream or derived."),
        Column("evidence", pl.String(), "What it rests on, in words or as a response_id.",
               nullable=True),
        Column("known_from", Time, "When the lake learnt it.", statistics=True),
    ),
    key=("instrument_id", "kind", "timeframe", "span_start", "span_end", "known_from", "state"),
    partition_by=("venue",),
    sort_by=("instrument_id", "kind", "timeframe", "span_start", "known_from"),
    row_group_rows=4_096,
)  # fmt: skip
