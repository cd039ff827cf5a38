"""Request weight as Binance counts it: a window, 429 above its limit, 418 for who goes on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Verdict:
    """What became of one request: served (200), refused (429) or banned (418)."""

    status: int
    used: int
    retry_after_seconds: int = 0


class WeightLimiter:
    """Counts the weight of all requests in fixed windows of real time.

    Args:
        limit: Weight allowed in a window.
        window_seconds: Length of a window.
        patience: How many refusals in a window are tolerated before the ban.
        ban_seconds: Length of a ban.
        enabled: Whether anything is refused; weight is counted in any case.
        monotonic: Real seconds.
    """

    def __init__(
        self,
        *,
        limit: int = 6000,
        window_seconds: float = 60.0,
        patience: int = 10,
        ban_seconds: float = 120.0,
        enabled: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.window_seconds = window_seconds
        self.patience = patience
        self.ban_seconds = ban_seconds
        self.enabled = enabled
        self.used = 0
        self._monotonic = monotonic
        self._window_start = monotonic()
        self._refusals = 0
        self._banned_until = -math.inf

    def charge(self, weight: int) -> Verdict:
        """Count a request of that weight and tell whether it is served."""
        now = self._monotonic()
        windows = (now - self._window_start) // self.window_seconds
        if windows:
            self._window_start += windows * self.window_seconds
            self.used = self._refusals = 0
        self.used += weight
        if not self.enabled:
            return Verdict(200, self.used)
        if now < self._banned_until:
            return Verdict(418, self.used, _whole(self._banned_until - now))
        if self.used <= self.limit:
            return Verdict(200, self.used)
        self._refusals += 1
        if self._refusals > self.patience:
            self._banned_until = now + self.ban_seconds
            return Verdict(418, self.used, _whole(self.ban_seconds))
        return Verdict(429, self.used, _whole(self._window_start + self.window_seconds - now))


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
