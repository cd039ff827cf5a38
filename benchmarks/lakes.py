"""Lakes for the benchmarks, filled through publish and ledger without a venue."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from benchmarks.data import candidates, instrument
from contracts.names import Venue
from contracts.tables import BAR_REVISIONS, BARS, LEDGER, State
from contracts.time import Span, SteppedClock, SystemClock
from flows.work import Progress, Work, open_work
from lake.ledger import Observation, observations_frame, record
from lake.settings import Settings
from lake.versioned import publish_bars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    import polars as pl

    from contracts.time import Clock
    from lake.versioned import Published

ORIGIN = "replay:benchmark"
# What a backfill publishes at once: 64 pages of 1000 bars.
BATCH_ROWS = 64_000


class EndingNow:
    """The clocks of a lake whose simulated time ends now.

    Storage time runs with the simulated one, as it does beside a real exchange. Otherwise the
    logs would keep the tombstones of months, that pass in minutes here, and not of seven days.

    Args:
        clock: Shows the simulated time.
        end: The simulated time that counts as now.
    """

    def __init__(self, clock: Clock, end: datetime) -> None:
        self._clock = clock
        self._later = SystemClock().storage() - end

    def known(self) -> datetime:
        """Return the simulated time."""
        return self._clock.known()

    def storage(self) -> datetime:
        """Return the time at which the simulated one would have been."""
        return self._clock.known() + self._later


def work_at(root: Path, clock: Clock, *, make: bool = True) -> Work:
    """Open a lake for a run, with the settings that the code comes with."""
    return open_work(
        str(root),
        clock=clock,
        origin=ORIGIN if make else None,
        settings=Settings.model_construct(),
        progress=Progress(),
    )


def publish_frame(work: Work, frame: pl.DataFrame) -> Published:
    """Publish candidates as they are, without contract and audits."""
    bars, revisions = work.table(BARS.name), work.table(BAR_REVISIONS.name)
    return publish_bars(bars, revisions, frame, known=work.clock.known())


def fill(root: Path, tapes: Mapping[str, pl.DataFrame]) -> SteppedClock:
    """Make a lake that holds bars by symbol, published as a backfill does: 64k rows a commit.

    Returns its clock, which stands a minute after the last bar's close.
    """
    last = max(frame.item(-1, "open_time") for frame in tapes.values())
    clock = SteppedClock(last + timedelta(minutes=2))
    work = work_at(root, clock)
    for symbol, bars in tapes.items():
        frame = candidates(bars, symbol)
        for batch in frame.iter_slices(BATCH_ROWS):
            publish_frame(work, batch)
        end = frame.item(-1, "open_time") + timedelta(minutes=1)
        observe(work, symbol, Span(frame.item(0, "open_time"), end))
    return clock


def observe(work: Work, symbol: str, span: Span) -> None:
    """Note in the ledger that a symbol's 1m bars of a span are there."""
    frame = observations_frame(
        [Observation(span, State.PRESENT)],
        instrument_id=instrument(symbol),
        venue=Venue.BINANCE.value,
        timeframe="1m",
        source="rest",
        known_from=work.clock.known(),
    )
    record(work.table(LEDGER.name), frame, known=work.clock.known())
