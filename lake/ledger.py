"""The ledger: what is known of each span of each stream.

``ops.ledger`` is an append-only log of observations. What is known is a pure fold of it: the
latest observation of an instant wins, and of two made at the same moment the one whose
state stands later in ``contracts.tables.ledger.State``; two that claim the same are ordered
by what they rest on, so that the fold never depends on the order of rows. What nobody has
observed is ``unfetched``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.spec import time_lit
from contracts.tables import LEDGER, State
from contracts.time import Span
from lake.appends import append_to_partition
from lake.bitemporal import visible
from lake.knowledge import check_clock, known_from_after
from lake.scan import collect_files, scan_files
from lake.tables import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from lake.parts import FileEntry
    from lake.store import Store
    from lake.tables import Table, View

STREAM = ("instrument_id", "kind", "timeframe")
_RANKS = {state.value: state.rank for state in State}


@dataclass(frozen=True, slots=True)
class Observation:
    """What was learnt of one span of a stream."""

    span: Span
    state: State
    evidence: str | None = None


def observations_frame(
    observations: Iterable[Observation],
    *,
    instrument_id: str,
    venue: str,
    timeframe: str,
    source: str,
    known_from: datetime,
    kind: str = "bars",
) -> pl.DataFrame:
    """Return observations of one stream as rows of ops.ledger."""
    rows = [
        (
            instrument_id,
            venue,
            kind,
            timeframe,
            each.span.start,
            each.span.end,
            each.state.value,
            source,
            each.evidence,
            known_from,
        )
        for each in observations
    ]
    return pl.DataFrame(rows, schema=LEDGER.schema, orient="row")


def fold(observations: pl.DataFrame, *, known_at: datetime | None = None) -> pl.DataFrame:
    """Return what is known: disjoint spans, adjacent ones of equal state not yet merged.

    Shape: the columns of ops.ledger, in order of stream and span_start.
    """
    if known_at is not None:
        observations = observations.filter(pl.col("known_from") <= time_lit(known_at))
    ranked = observations.with_columns(
        rank=pl.col("state").replace_strict(_RANKS, return_dtype=pl.Int8)
    )
    seen = visible(
        ranked,
        stream=STREAM,
        start="span_start",
        end="span_end",
        priority=("known_from", "rank", "source", "span_end", "evidence"),
    )
    return seen.drop("rank")


def runs(folded: pl.DataFrame) -> pl.DataFrame:
    """Merge adjacent spans of one state into maximal runs.

    Shape: stream, span_start, span_end, state, then source, evidence (of the first span
    that has any) and known_from (the latest) of what was merged.
    """
    same_stream = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in STREAM)
    goes_on = (
        same_stream
        & (pl.col("state") == pl.col("state").shift(1))
        & (pl.col("span_start") == pl.col("span_end").shift(1))
    )
    numbered = folded.with_columns(run=(~goes_on.fill_null(value=False)).cum_sum())
    return (
        numbered.group_by("run", *STREAM, maintain_order=True)
        .agg(
            pl.col("span_start").first(),
            pl.col("span_end").last(),
            pl.col("state").first(),
            pl.col("source").drop_nulls().unique(maintain_order=True),
            pl.col("evidence").drop_nulls().first(),
            pl.col("known_from").max(),
        )
        .with_columns(
            source=pl.when(pl.col("source").list.len() > 0).then(pl.col("source").list.join("+"))
        )
        .drop("run")
    )


def tiling(
    folded: pl.DataFrame, streams: Sequence[tuple[str, str, str]], span: Span
) -> pl.DataFrame:
    """Return maximal runs that tile ``span`` exactly for each stream.

    Args:
        folded: What ``fold`` returned.
        streams: The streams to show, as (instrument_id, kind, timeframe).
        span: The span to tile.

    Shape: the columns of ``runs``; what nobody observed is ``unfetched`` with nulls.
    """
    start, end = time_lit(span.start), time_lit(span.end)
    inside = folded.filter(pl.col("span_end") > start, pl.col("span_start") < end).with_columns(
        pl.max_horizontal("span_start", start), pl.min_horizontal("span_end", end)
    )
    wanted = pl.DataFrame(list(streams), schema=dict.fromkeys(STREAM, pl.String), orient="row")
    kept = inside.join(wanted, on=STREAM, how="semi", maintain_order="left")
    holes = _holes(kept, wanted, span)
    return runs(pl.concat([kept, holes], how="diagonal").sort(*STREAM, "span_start"))


def _holes(kept: pl.DataFrame, wanted: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Return unfetched rows for what ``kept`` leaves uncovered of ``span``."""
    spans = kept.select(*STREAM, "span_start", "span_end")
    edges = pl.concat(
        [
            wanted.with_columns(
                time_lit(moment).alias("span_start"), time_lit(moment).alias("span_end")
            )
            for moment in (span.start, span.end)
        ]
    )
    ordered = pl.concat([spans, edges]).sort(*STREAM, "span_start", "span_end")
    after = pl.col("span_start").shift(-1).over(STREAM)
    return (
        ordered.with_columns(following=after)
        .filter(pl.col("following") > pl.col("span_end"))
        .select(
            *STREAM,
            span_start="span_end",
            span_end="following",
            state=pl.lit(State.UNFETCHED.value),
            source=pl.lit(None, pl.String),
        )
    )


def read_observations(
    store: Store,
    view: View,
    *,
    instruments: Sequence[str] | None = None,
    span: Span | None = None,
) -> pl.DataFrame:
    """Return the observations of some instruments that touch a span."""
    files: Sequence[FileEntry] = view.files
    if instruments:
        low, high = min(instruments), max(instruments)
        files = [entry for entry in files if entry.may_hold("instrument_id", low, high)]
    rows = scan_files(store, LEDGER, files)
    if instruments is not None:
        rows = rows.filter(pl.col("instrument_id").is_in(list(instruments)))
    if span is not None:
        rows = rows.filter(
            pl.col("span_end") > time_lit(span.start), pl.col("span_start") < time_lit(span.end)
        )
    return collect_files(store, LEDGER, files, rows)


def record(table: Table, observations: pl.DataFrame, *, known: datetime) -> int:
    """Append what the observations add to what is known; return the number of rows.

    An observation is cut to the parts whose state it changes, so that saying twice what is
    known already makes no commit.

    Args:
        table: ops.ledger.
        observations: Rows of ops.ledger, of one venue; their known_from is set here.
        known: The known clock's time.
    """
    if observations.is_empty():
        return 0
    written = 0

    def plan(view: View) -> Change | None:
        nonlocal written
        check_clock(view, known)
        names = observations["instrument_id"].unique().to_list()
        near = read_observations(table.store, view, instruments=names, span=_hull(observations))
        stored = near.join(observations.select(STREAM).unique(), on=STREAM, how="semi")
        added = _changes(observations, stored, known)
        written = added.height
        if added.is_empty():
            return None
        files = view.partition({"venue": added["venue"][0]})
        write, remove = append_to_partition(table.store, LEDGER, files, added)
        return Change(write, remove)

    table.transact(f"ledger/{observations['venue'][0]}", plan)
    return written


def _hull(observations: pl.DataFrame) -> Span:
    start, end = observations["span_start"].min(), observations["span_end"].max()
    return Span(start, end)  # type: ignore[arg-type]


def _changes(observations: pl.DataFrame, stored: pl.DataFrame, known: datetime) -> pl.DataFrame:
    at = known_from_after(known, stored)
    dated = observations.with_columns(time_lit(at).alias("known_from"))
    if stored.is_empty():
        return _merged(fold(dated))
    before = fold(stored).select(*STREAM, "span_start", "span_end", was="state")
    after = fold(pl.concat([stored, dated])).filter(pl.col("known_from") == time_lit(at))
    cut = _cut_at(after, before)
    changed = cut.filter(pl.col("state").ne_missing(pl.col("was"))).select(LEDGER.schema.names())
    return _merged(changed)


def _cut_at(after: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Cut the spans of ``after`` where those of ``before`` begin or end; add what was known."""
    edges = pl.concat(
        [
            frame.select(*STREAM, edge=name)
            for frame in (before, after)
            for name in ("span_start", "span_end")
        ]
    ).unique()
    pieces = (
        edges.sort(*STREAM, "edge")
        .with_columns(piece_end=pl.col("edge").shift(-1).over(STREAM))
        .drop_nulls("piece_end")
    )
    told = _covering(pieces, after).select(
        pl.exclude("span_start", "span_end", "piece_end", "edge"),
        span_start="edge",
        span_end="piece_end",
    )
    known = _covering(pieces, before).select(*STREAM, "was", span_start="edge")
    return told.join(known, on=[*STREAM, "span_start"], how="left")


def _covering(pieces: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Return the pieces that lie inside one of the disjoint ``spans``, with its columns."""
    return pieces.join_asof(
        spans.sort(*STREAM, "span_start"),
        left_on="edge",
        right_on="span_start",
        by=list(STREAM),
        strategy="backward",
        coalesce=False,
        check_sortedness=False,
    ).filter(pl.col("piece_end") <= pl.col("span_end"))


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """Merge adjacent spans that say the same on the same evidence."""
    if rows.is_empty():
        return rows.select(LEDGER.schema.names())
    told = [*STREAM, "state", "source", "evidence"]
    ordered = rows.sort(*STREAM, "span_start")
    goes_on = pl.all_horizontal(
        *(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in told),
        pl.col("span_start") == pl.col("span_end").shift(1),
    ).fill_null(value=False)
    return (
        ordered.with_columns(run=(~goes_on).cum_sum())
        .group_by("run", maintain_order=True)
        .agg(
            pl.exclude("span_end", "run").first(),
            pl.col("span_end").last(),
        )
        .select(LEDGER.schema.names())
    )
