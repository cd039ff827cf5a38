"""Audits of a batch of bars, before anything of it is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import ContractError
from contracts.tables import BARS
from contracts.validate import bar_rules, is_unique
from quality.audit import ALL_GOOD, Audit, AuditResult, Verdict, describe_row, judge, with_reasons

if TYPE_CHECKING:
    from contracts.names import Timeframe
    from contracts.time import Span

CANDIDATE_SCHEMA = pl.Schema({n: t for n, t in BARS.schema.items() if n != BARS.known})

_REQUIRED = tuple(
    column.name
    for column in BARS.columns
    if not column.nullable and not column.value and column.name in CANDIDATE_SCHEMA
)

_MEANINGS = {
    "price_positive": "open, high, low and close are present, finite and above zero",
    "volume_sound": "volume is present, and every volume finite and not negative",
    "trade_count_sound": "trade_count is not negative",
    "high_covers_body": "high is not below open or close",
    "low_covers_body": "low is not above open or close",
    "high_above_low": "high is not below low",
    "taker_within_volume": "taker_buy_volume is not above volume",
    "taker_within_quote_volume": "taker_buy_quote_volume is not above quote_volume",
    "on_grid": "open_time is a multiple of the timeframe since 1970-01-01",
    "available_after_close": "available_at is not before the close of the bar",
    "year_of_open_time": "year is the UTC year of open_time",
}


def audit_bars(frame: pl.DataFrame, *, asked: Span, timeframe: Timeframe) -> Verdict:
    """Judge a candidate batch: the columns of silver.bars except known_from.

    A row that stands twice with equal values is kept once; the non-blocking audit
    ``duplicate_rows`` counts the dropped ones, which are in neither part of the verdict. Of
    rows that share a key and differ in a value all are bad, since none can be preferred. A
    frame of another schema blocks and is bad as a whole.

    Args:
        frame: The candidate.
        asked: The span that the venue was asked for; a bar that opens outside it means a
            shifted page and blocks the batch.
        timeframe: The timeframe that the venue was asked for.
    """
    wrong = _schema_fault(frame)
    if wrong:
        found = AuditResult("schema", blocking=True, rows=frame.height, bad_rows=max(
            frame.height, 1), detail=wrong)  # fmt: skip
        return Verdict(frame.clear(), with_reasons(frame, "schema"), (found,))
    single, duplicates = _without_duplicates(frame)
    unique = single is frame or is_unique(single, BARS.key)
    verdict = judge(single, _audits(single, asked, timeframe, unique=unique))
    schema = AuditResult("schema", blocking=True, rows=frame.height, bad_rows=0)
    return Verdict(verdict.good, verdict.bad, (schema, duplicates, *verdict.results))


def _schema_fault(frame: pl.DataFrame) -> str:
    if list(frame.schema.items()) == list(CANDIDATE_SCHEMA.items()):
        return ""
    blank = pl.Series(BARS.known, [], dtype=BARS.by_name[BARS.known].dtype)
    try:
        BARS.check_schema(frame.clear().with_columns(blank))
    except ContractError as error:
        return error.message
    return f"{BARS.known} stands in a candidate"


def _audits(frame: pl.DataFrame, asked: Span, timeframe: Timeframe, *, unique: bool) -> list[Audit]:
    opens = pl.col("open_time")
    audits = [
        Audit(
            "outside_asked",
            blocking=True,
            checks=f"open_time lies in {asked}",
            good=((opens >= asked.start) & (opens < asked.end)) | opens.is_null(),
        ),
        Audit(
            "timeframe_asked",
            blocking=True,
            checks=f"timeframe is {timeframe}",
            good=pl.col("timeframe") == timeframe.code,
        ),
        Audit(
            "required_present",
            blocking=False,
            checks=", ".join(_REQUIRED) + " are present",
            good=_present(frame),
        ),
    ]
    audits += [
        Audit(name, blocking=False, checks=_MEANINGS[name], good=rule)
        for name, rule in bar_rules(frame).items()
    ]
    audits.append(
        Audit(
            "conflicting_duplicate",
            blocking=False,
            checks="no other row has the same key and other values",
            good=ALL_GOOD if unique else pl.struct(BARS.key).is_unique(),
        )
    )
    return audits


def _present(frame: pl.DataFrame) -> pl.Expr:
    holes = [name for name in _REQUIRED if frame[name].null_count()]
    if not holes:
        return ALL_GOOD
    return pl.all_horizontal(pl.col(name).is_not_null() for name in holes)


def _without_duplicates(frame: pl.DataFrame) -> tuple[pl.DataFrame, AuditResult]:
    name = "duplicate_rows"
    if is_unique(frame, BARS.key):
        return frame, AuditResult(name, blocking=False, rows=frame.height, bad_rows=0)
    asserted = [*BARS.key, *BARS.value_columns]
    first = frame.select(pl.struct(asserted).is_first_distinct()).to_series()
    dropped = frame.filter(~first)
    detail = f"dropped; the first: {describe_row(dropped, 0)}" if dropped.height else ""
    found = AuditResult(
        name, blocking=False, rows=frame.height, bad_rows=dropped.height, detail=detail
    )
    return frame.filter(first), found
