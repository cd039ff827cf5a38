"""The circuit breaker: when a batch is too bad for any of it to be published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quality.audit import Verdict


@dataclass(frozen=True, slots=True)
class Breaker:
    """Trips on a failed blocking audit, or on many bad rows.

    Both bounds must be passed: a share alone would stop a batch of fifty rows for one bad
    one, a count alone a year of minutes for a bad hour.

    Attributes:
        share: More bad rows per row than this are too many, ...
        rows: ... where they are at least so many.
    """

    share: float = 0.01
    rows: int = 20

    def trips(self, verdict: Verdict) -> str | None:
        """Return why nothing of a batch that has one verdict may be published, or None."""
        return blocked_by(verdict) or self.too_many(
            verdict.bad.height, verdict.good.height + verdict.bad.height
        )

    def too_many(self, bad: int, rows: int) -> str | None:
        """Return why so many bad rows among so many are too many, or None."""
        if bad >= self.rows and bad > self.share * rows:
            return (
                f"{bad} of {rows} rows are bad ({bad / rows:.2%}), more than "
                f"{self.share:.2%} and at least {self.rows}"
            )
        return None


def blocked_by(verdict: Verdict) -> str | None:
    """Return which blocking audits failed, or None."""
    blocking = [result for result in verdict.failed() if result.blocking]
    told = (
        f"{result.audit} failed for {result.bad_rows} of {result.rows} rows" for result in blocking
    )
    return "; ".join(told) or None
