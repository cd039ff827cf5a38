"""Verdicts as rows of ops.quarantine and ops.audits."""

from __future__ import annotations

import hashlib
import math
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import ContractError
from contracts.response import canonical_json
from contracts.tables import AUDITS, QUARANTINE
from contracts.time import iso
from quality.audit import REASONS

if TYPE_CHECKING:
    from contracts.spec import TableSpec
    from contracts.time import Span
    from quality.audit import Verdict

_EVENT_TIMES = ("open_time", "funding_time", "span_start", "valid_from", "event_time")
_OURS = ("venue", "instrument_id")


def quarantine_rows(
    bad: pl.DataFrame, *, table: TableSpec, run_id: str, known_from: datetime
) -> pl.DataFrame:
    """Return the bad rows of a verdict in the schema of ops.quarantine.

    The id is a hash of the table, the row's key, its values and its source: the same row
    refused again, by whichever run, has the same id. Rows with equal ids become one.

    Args:
        bad: Rows with their ``reasons``; ``venue`` and ``instrument_id`` must be present,
            since a refused row must be found under its stream.
        table: The table that the rows were meant for.
        run_id: The run that refused them.
        known_from: When they were refused.

    Raises:
        ContractError: A row names no venue or no instrument, or gives no reason.
    """
    if bad.is_empty():
        return QUARANTINE.empty()
    _check_streams(bad, table)
    event_time = next((name for name in _EVENT_TIMES if name in bad.columns), None)
    rows = {}
    for record in bad.iter_rows(named=True):
        reasons = record.pop(REASONS)
        text = canonical_json(_plain({k: v for k, v in record.items() if k != table.known}))
        quarantine_id = _quarantine_id(table, record)
        when = record.get(event_time) if event_time else None
        rows[quarantine_id] = {
            "quarantine_id": quarantine_id,
            "table_name": table.name,
            "venue": record["venue"],
            "instrument_id": record["instrument_id"],
            "timeframe": record.get("timeframe"),
            "event_time": when if isinstance(when, datetime) else None,
            "reasons": reasons,
            "row": text,
            "source": record.get("source") or "unknown",
            "run_id": run_id,
            "known_from": known_from,
        }
    return pl.DataFrame(list(rows.values()), schema=QUARANTINE.schema).sort(QUARANTINE.sort_by)


def audit_rows(
    verdict: Verdict,
    *,
    table: TableSpec,
    venue: str,
    instrument_id: str,
    timeframe: str | None,
    span: Span,
    run_id: str,
    known_from: datetime,
    tripped: str | None = None,
    released: bool = False,
) -> pl.DataFrame:
    """Return the results of a verdict in the schema of ops.audits.

    Each audit that failed is a row; those that passed share one, named ``passed``, whose
    detail lists them.

    Args:
        verdict: What the audits found.
        table: The table that the batch was meant for.
        venue: The venue.
        instrument_id: The stream's instrument.
        timeframe: The stream's timeframe, None for streams without.
        span: The batch's span.
        run_id: The run.
        known_from: When the audits ran.
        tripped: Why the circuit breaker tripped; it becomes an audit named ``breaker``.
        released: Whether an operator let the batch through all the same.
    """
    stopped = "released" if released else "tripped"
    found = [
        (result.audit, result.blocking, stopped if result.blocking else "failed",
         result.rows, result.bad_rows, result.detail or None)
        for result in verdict.failed()
    ]  # fmt: skip
    passed = [result for result in verdict.results if result.passed]
    if passed:
        names = ", ".join(result.audit for result in passed)
        found.append(("passed", False, "passed", max(r.rows for r in passed), 0, names))
    if tripped is not None:
        whole = verdict.good.height + verdict.bad.height
        found.append(("breaker", True, stopped, whole, verdict.bad.height, tripped))
    stream = (table.name, venue, instrument_id, timeframe or "", iso(span.start), iso(span.end))
    rows = [
        (_digest(run_id, *stream, audit), run_id, table.name, venue, instrument_id, timeframe,
         span.start, span.end, audit, blocking, word, count, bad, detail, known_from)
        for audit, blocking, word, count, bad, detail in found
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=AUDITS.schema, orient="row").sort(AUDITS.sort_by)


def _check_streams(bad: pl.DataFrame, table: TableSpec) -> None:
    for name in (*_OURS, REASONS):
        if name not in bad.columns or bad[name].null_count():
            msg = f"{table.name}: a refused row has no {name}"
            raise ContractError(msg, remedy="Name the stream before the audit", table=table.name)


def _quarantine_id(table: TableSpec, record: dict[str, Any]) -> str:
    told = (*table.key, *table.value_columns, "source")
    content = {name: record[name] for name in told if name in record and name != table.known}
    # A frame of another schema may lack the columns that tell its rows apart.
    complete = all(name in record for name in table.key if name != table.known)
    return _digest(table.name, canonical_json(_plain(content if complete else record)))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value as JSON can say it; JSON knows neither times nor NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, datetime):
        return iso(value) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
