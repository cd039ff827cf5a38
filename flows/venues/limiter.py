"""A weighted request limiter that never asks for more than the venue allows.

Two views of the same budget, and a request leaves only when both have room:

* **Ours, sliding.** A request is charged from the moment it leaves until one window after
  its answer arrived. The venue counted it somewhere in between, so the charges of any
  window, fixed or sliding, wherever it begins, never exceed the budget.
* **The venue's, fixed.** Each answer states the weight used in the venue's running window,
  by everybody behind this IP. Within a window that count only grows; when a request that
  left after the highest count was read brings a smaller one, the window has turned. The
  first answer of a window bounds its end from above, and every turn tightens the bound.
  Answers that straddle a turn are charged to the new window, whichever counted them.

A pause (``Retry-After``, a ban) closes the door for all workers at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from contracts.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from flows.venues.base import OnWait

_LONGEST_WAIT_SECONDS = 900.0
_IN_FLIGHT_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Budget:
    """What a venue allows.

    Attributes:
        weight: Weight per window.
        window_seconds: Length of the window.
        headroom: Share left unused: a connection that died is asked again below us, and
            other processes behind the same IP are seen only after the fact.
    """

    weight: int
    window_seconds: float
    headroom: float = 0.01

    @property
    def usable(self) -> int:
        """Weight per window that we allow ourselves."""
        return max(1, int(self.weight * (1 - self.headroom)))


class Ticket:
    """A request on its way: what it costs, when it left, and what the venue counted."""

    __slots__ = ("left_at", "used", "weight")

    def __init__(self, weight: int, left_at: float) -> None:
        self.weight = weight
        self.left_at = left_at
        self.used: int | None = None


class WeightedLimiter:
    """Shares one budget among all coroutines, of all event loops of the process.

    Args:
        name: Whose budget, for messages.
        budget: The budget; None for no limit (pauses are still obeyed).
        longest_wait_seconds: A pause beyond this is raised instead of waited out.
        timer: Monotonic seconds.
        sleep: Waits that many seconds of ``timer``.
    """

    def __init__(
        self,
        name: str,
        budget: Budget | None,
        *,
        longest_wait_seconds: float = _LONGEST_WAIT_SECONDS,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.budget = budget
        self._longest = longest_wait_seconds
        self._timer = timer
        self._sleep = sleep
        self._guard = threading.Lock()
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )
        self._in_flight = 0
        self._settled: deque[tuple[float, int]] = deque()
        self._settled_weight = 0
        self._count = 0
        self._count_read_at = float("-inf")
        self._straddling = 0
        self._straddled_at = float("-inf")
        self._turned_at = float("-inf")
        self._window_end = float("inf")
        self._paused_until = float("-inf")
        self._pause_reason = ""

    @asynccontextmanager
    async def request(self, weight: int, on_wait: OnWait | None = None) -> AsyncIterator[Ticket]:
        """Wait for room, then hold the charge; set ``ticket.used`` from the answer's header.

        Raises:
            RateLimitedError: A pause is longer than this limiter waits.
        """
        ticket = await self._admitted(weight, on_wait)
        try:
            yield ticket
        finally:
            self._settle(ticket)

    def pause(self, seconds: float, reason: str) -> None:
        """Close the door for every worker; a shorter pause never shortens a longer one."""
        with self._guard:
            until = self._timer() + seconds
            if until > self._paused_until:
                self._paused_until, self._pause_reason = until, reason

    async def _admitted(self, weight: int, on_wait: OnWait | None) -> Ticket:
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(loop, asyncio.Lock()):
            told = ""
            while True:
                with self._guard:
                    now = self._timer()
                    delay, reason = self._delay(weight, now)
                    if delay <= 0:
                        self._in_flight += weight
                        return Ticket(weight, now)
                    paused = self._paused_until > now
                if paused and delay > self._longest:
                    raise self._too_long(delay, reason)
                if on_wait is not None and reason != told and (paused or self._is_long(delay)):
                    on_wait(reason, delay)
                    told = reason
                await self._sleep(delay)

    def _delay(self, weight: int, now: float) -> tuple[float, str]:
        """Seconds until it is worth looking again, and why; zero to go ahead."""
        if self._paused_until > now:
            return self._paused_until - now, self._pause_reason
        if self.budget is None:
            return 0.0, ""
        self._forget(now)
        usable = self.budget.usable
        counted = self._count + self._straddling
        if counted and counted + self._in_flight + weight > usable:
            reason = f"{self.name} counts {counted} of {self.budget.weight} weight used"
            return self._window_end - now, f"{reason} in this window"
        over = self._settled_weight + self._in_flight + weight - usable
        if over <= 0 or self._settled_weight + self._in_flight == 0:
            return 0.0, ""
        window = f"{self.budget.window_seconds:g} s"
        reason = f"{self.budget.weight} weight per {window} of {self.name} are used up"
        for free_at, freed in self._settled:
            over -= freed
            if over <= 0:
                return free_at - now, reason
        return _IN_FLIGHT_POLL_SECONDS, reason

    def _forget(self, now: float) -> None:
        """Drop charges whose window passed, and the venue's count once its window turned."""
        while self._settled and self._settled[0][0] <= now:
            self._settled_weight -= self._settled.popleft()[1]
        if self.budget is not None and now >= self._window_end:
            turns = (now - self._window_end) // self.budget.window_seconds + 1
            self._window_end += turns * self.budget.window_seconds
            self._turn(0, now)

    def _settle(self, ticket: Ticket) -> None:
        with self._guard:
            self._in_flight -= ticket.weight
            if self.budget is None:
                return
            now = self._timer()
            self._settled.append((now + self.budget.window_seconds, ticket.weight))
            self._settled_weight += ticket.weight
            if ticket.used is not None:
                self._forget(now)
                self._read_count(ticket, ticket.used, now, self.budget.window_seconds)

    def _read_count(self, ticket: Ticket, used: int, now: float, window: float) -> None:
        if ticket.left_at < self._turned_at:
            self._straddling += ticket.weight
            self._straddled_at = now
        elif used >= self._count:
            self._count, self._count_read_at = used, now
            self._window_end = min(self._window_end, now + window)
            if ticket.left_at >= self._straddled_at:
                self._straddling = 0
        elif ticket.left_at >= self._count_read_at:
            self._window_end = min(self._window_end, now) + window
            self._turn(used, now)

    def _turn(self, count: int, now: float) -> None:
        self._count, self._straddling = count, 0
        self._count_read_at = self._turned_at = now

    def _is_long(self, delay: float) -> bool:
        return self.budget is not None and delay >= self.budget.window_seconds / 60

    def _too_long(self, delay: float, reason: str) -> RateLimitedError:
        return RateLimitedError(
            f"{reason}; it asks us to wait {delay:.0f} s",
            remedy=f"Stop every other program that asks {self.name} from this address, and run "
            f"again in {delay:.0f} s",
            retry_after_seconds=delay,
        )
