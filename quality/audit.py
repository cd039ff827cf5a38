"""An audit is a named question about the rows of a frame; a verdict is what came of it.

Everything here is pure: a frame in, a verdict out, no I/O. A row that fails keeps every
reason, and a rule that cannot say (null) counts as failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

REASONS = "reasons"

# For an audit that is settled for the whole frame before its rows are asked.
ALL_GOOD = pl.repeat(value=True, n=pl.len())


@dataclass(frozen=True, eq=False)
class Audit:
    """One question about the rows of a frame.

    Attributes:
        name: Stands as the reason of a bad row, and in ops.audits.
        blocking: Whether one bad row stops the whole batch.
        checks: What a good row looks like, in words.
        good: The expression that is true for a good row.
    """

    name: str
    blocking: bool
    checks: str
    good: pl.Expr = field(repr=False)


@dataclass(frozen=True)
class AuditResult:
    """What one audit found.

    Attributes:
        audit: Name of the audit.
        blocking: Whether one bad row stops the whole batch.
        rows: Rows that were asked about.
        bad_rows: Rows that failed.
        detail: The first bad row, or an explanation; empty when all passed.
    """

    audit: str
    blocking: bool
    rows: int
    bad_rows: int
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether no row failed."""
        return self.bad_rows == 0


@dataclass(frozen=True, eq=False)
class Verdict:
    """Good rows, bad rows with their reasons, and what every audit found.

    Attributes:
        good: Rows that passed every audit, in their order.
        bad: The others, with a column ``reasons`` that names every failed audit.
        results: One result per audit, failed or passed.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    results: tuple[AuditResult, ...]

    @property
    def blocked(self) -> bool:
        """Whether a blocking audit failed: nothing of the batch may be published."""
        return any(result.blocking and not result.passed for result in self.results)

    @property
    def bad_share(self) -> float:
        """Bad rows per row; 0 for an empty frame."""
        rows = self.good.height + self.bad.height
        return self.bad.height / rows if rows else 0.0

    def failed(self) -> tuple[AuditResult, ...]:
        """Return the results that found bad rows."""
        return tuple(result for result in self.results if not result.passed)


def judge(frame: pl.DataFrame, audits: Sequence[Audit]) -> Verdict:
    """Ask every audit about every row, in one pass over the frame.

    Shape:
        ``good`` has the schema of ``frame``; ``bad`` the same and ``reasons: List(String)``.
        Their heights add up to the frame's.
    """
    names = [audit.name for audit in audits]
    counted = frame.select(audit.good.sum().alias(audit.name) for audit in audits)
    passed = dict(zip(names, counted.row(0), strict=True)) if audits else {}
    # sum() counts the true ones and skips nulls, so a null is bad.
    bad_rows = {name: frame.height - count for name, count in passed.items()}
    if not any(bad_rows.values()):
        results = tuple(AuditResult(a.name, a.blocking, frame.height, 0) for a in audits)
        return Verdict(frame, with_reasons(frame.clear()), results)
    broken = [audit for audit in audits if bad_rows[audit.name]]
    marks = frame.select(
        pl.when(audit.good.fill_null(value=False)).then(None).otherwise(pl.lit(audit.name))
        .alias(audit.name) for audit in broken
    )  # fmt: skip
    fails = marks.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
    reasons = marks.filter(fails).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()
    bad = frame.filter(fails).with_columns(reasons.alias(REASONS))
    results = tuple(
        AuditResult(
            audit.name,
            audit.blocking,
            frame.height,
            bad_rows[audit.name],
            _first_failure(frame, marks, audit) if bad_rows[audit.name] else "",
        )
        for audit in audits
    )
    return Verdict(frame.filter(~fails), bad, results)


def with_reasons(frame: pl.DataFrame, *reasons: str) -> pl.DataFrame:
    """Return ``frame`` with a column ``reasons`` that says the same of every row."""
    column = pl.lit(list(reasons), dtype=pl.List(pl.String))
    return frame.with_columns(column.alias(REASONS))


def describe_row(frame: pl.DataFrame, index: int) -> str:
    """Return one row in words, short enough for a log line."""
    row = frame.row(index, named=True)
    text = ", ".join(f"{name}={value}" for name, value in row.items())
    return text if len(text) <= 400 else text[:397] + "..."


def _first_failure(frame: pl.DataFrame, marks: pl.DataFrame, audit: Audit) -> str:
    index = marks[audit.name].is_not_null().arg_max() or 0
    return f"{audit.checks}; first refused: {describe_row(frame, index)}"
