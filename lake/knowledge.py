"""Knowledge never runs backwards."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from contracts.errors import ClockRegressionError
from contracts.time import MICROSECOND, iso

if TYPE_CHECKING:
    import polars as pl

    from lake.tables import View

CLOCK_TOLERANCE = timedelta(minutes=5)


def known_from_after(known: datetime, touched: pl.DataFrame) -> datetime:
    """Return the knowledge time of a write: never at or before that of a row it outdates."""
    newest = touched["known_from"].max()
    return max(known, newest + MICROSECOND) if isinstance(newest, datetime) else known


def newest_knowledge(view: View) -> datetime | None:
    """Return the newest knowledge time of a table, rounded up to a millisecond."""
    column = view.spec.known
    seen = (entry.high.get(column) for entry in view.files)
    return max((high for high in seen if isinstance(high, datetime)), default=None)


def check_clock(view: View, known: datetime) -> None:
    """Refuse to write with a clock that is well behind what the table knows.

    Raises:
        ClockRegressionError: ``known`` is more than five minutes behind.
    """
    newest = newest_knowledge(view)
    if newest is not None and known < newest - CLOCK_TOLERANCE:
        raise ClockRegressionError(
            f"The clock says {iso(known)}, but {view.spec.name} holds knowledge of {iso(newest)}",
            remedy="Set the clock right; nothing was written",
            known=known,
            newest=newest,
        )
