"""The clock of a replay: it stands, is set or stepped, or runs at a speed."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from contracts.errors import RequestError
from contracts.time import SteppedClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from contracts.names import MarketType, Venue
    from flows.replay.tape import Tape

MARGIN = timedelta(minutes=1)


class ReplayClock(SteppedClock):
    """A stepped clock that can also run; ``storage`` stays real.

    Args:
        known: What it shows at first, standing still.
        monotonic: Real seconds that a running clock counts.
    """

    def __init__(self, known: datetime, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(known)
        self._monotonic = monotonic
        self._since: float | None = None
        self.speed = 0.0

    @classmethod
    def at_end_of(
        cls, tape: Tape, venue: Venue | None = None, market_type: MarketType | None = None
    ) -> ReplayClock:
        """Return a clock that stands one minute after the last close of those bars."""
        return cls(tape.last_close(venue, market_type) + MARGIN)

    @property
    def running(self) -> bool:
        """Whether the clock moves by itself."""
        return self._since is not None

    def known(self) -> datetime:
        """Return the replayed time."""
        if self._since is None:
            return super().known()
        elapsed = (self._monotonic() - self._since) * self.speed
        return super().known() + timedelta(seconds=elapsed)

    def set(self, known: datetime) -> None:
        """Set the replayed time; a running clock runs on from there."""
        super().set(known)
        if self.running:
            self._since = self._monotonic()

    def run(self, speed: float = 1.0) -> None:
        """Let the clock run, ``speed`` replayed seconds for each real one.

        Raises:
            RequestError: The speed is not above zero.
        """
        if not 0 < speed < float("inf"):
            raise RequestError(
                f"speed {speed} is not above zero", remedy="Stop the clock to let it stand"
            )
        super().set(self.known())
        self._since, self.speed = self._monotonic(), speed

    def stop(self) -> None:
        """Let the clock stand where it is."""
        super().set(self.known())
        self._since, self.speed = None, 0.0
