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
        """Return why nothing of the batch may be published, or None."""
        blocking = [result for result in verdict.failed() if result.blocking]
        if blocking:
            return "; ".join(
                f"{result.audit} failed for {result.bad_rows} of {result.rows} rows"
                for result in blocking
            )
        bad = verdict.bad.height
        if bad >= self.rows and verdict.bad_share > self.share:
            whole = verdict.good.height + bad
            return (
                f"{bad} of {whole} rows are bad ({verdict.bad_share:.2%}), more than "
                f"{self.share:.2%} and at least {self.rows}"
            )
        return None
