"""Measuring: subjects take turns in one process, and a figure is a ratio of two of them."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Took:
    """How long something took: by the clock, and in CPU seconds of this process's threads.

    The second is what a busy machine disturbs less.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Attributes:
        folder: An empty folder to work in.
        size: ``tiny`` shows that it runs, ``default`` measures, ``slow`` measures in full.
    """

    folder: Path
    size: str = "default"

    def pick(self, *, tiny: Any, default: Any, slow: Any = None) -> Any:
        """Return the value that belongs to the size; without ``slow`` the default's."""
        values = {"tiny": tiny, "default": default, "slow": default if slow is None else slow}
        return values[self.size]


@dataclass(frozen=True)
class Target:
    """What a ratio is held against.

    Attributes:
        bound: The ratio that is still good.
        at_least: Whether more is better: a share of a rate, instead of a multiple of a cost.
    """

    bound: float
    at_least: bool = False

    def met(self, ratio: float) -> bool:
        """Tell whether a ratio is good enough."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}x"


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        what: What was measured.
        measured: Its figure, with unit.
        floor: The figure that it is held against, with unit.
        ratio: The best of one to the best of the other.
        median_ratio: The same of the medians.
        cpu_ratio: The same of the best CPU seconds.
        target: What the ratio should be; None for a line that only informs.
        raw: All figures behind it.
        note: What a reader should know beside.
    """

    what: str
    measured: str
    floor: str
    ratio: float | None = None
    median_ratio: float | None = None
    cpu_ratio: float | None = None
    target: Target | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met, or None where there is none."""
        if self.target is None or self.ratio is None:
            return None
        return self.target.met(self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        told = asdict(self) | {"ok": self.ok}
        return told | {"target": None if self.target is None else str(self.target)}


def timed(call: Callable[[], object]) -> Took:
    """Return how long a call takes."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


async def timed_async(call: Callable[[], Awaitable[object]]) -> Took:
    """Return how long an awaited call takes."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await call()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(
    rounds: int, subjects: Mapping[str, Callable[[], Took]], *, warm: bool = True
) -> dict[str, list[Took]]:
    """Let subjects take turns, in turning order; each returns what it took.

    With ``warm`` one round is run before and not counted.
    """
    names = list(subjects)
    took: dict[str, list[Took]] = {name: [] for name in names}
    for number in range(-1 if warm else 0, rounds):
        for name in names if number % 2 else reversed(names):
            seconds = subjects[name]()
            if number >= 0:
                took[name].append(seconds)
    return took


async def alternate_async(
    rounds: int, subjects: Mapping[str, Callable[[], Awaitable[Took]]], *, warm: bool = True
) -> dict[str, list[Took]]:
    """Let awaited subjects take turns, as ``alternate`` does."""
    names = list(subjects)
    took: dict[str, list[Took]] = {name: [] for name in names}
    for number in range(-1 if warm else 0, rounds):
        for name in names if number % 2 else reversed(names):
            seconds = await subjects[name]()
            if number >= 0:
                took[name].append(seconds)
    return took


def cost(
    what: str,
    measured: Sequence[Took],
    floor: Sequence[Took],
    *,
    target: float | None,
    note: str = "",
    judge: Callable[[Sequence[float]], float] = min,
) -> Result:
    """Return a line that says how many times as long as the floor something takes.

    ``judge`` makes one figure of many: the best, or the mean where work that comes due only
    now and then belongs to the cost.
    """
    mine, least = _walls(measured), _walls(floor)
    return Result(
        what,
        shown(mine),
        shown(least),
        judge(mine) / judge(least),
        statistics.median(mine) / statistics.median(least),
        _cpu(measured) / _cpu(floor),
        None if target is None else Target(target),
        _raw(measured, floor),
        note,
    )


def rate(
    what: str,
    measured: Sequence[Took],
    floor: Sequence[Took],
    *,
    amount: int,
    unit: str,
    target: float | None,
    note: str = "",
) -> Result:
    """Return a line that says what share of the floor's rate something reaches."""
    mine, least = _walls(measured), _walls(floor)

    def per_second(seconds: Sequence[float]) -> str:
        best, middle = amount / min(seconds), amount / statistics.median(seconds)
        return f"{_short(best)} ({_short(middle)}) {unit}/s"

    return Result(
        what,
        per_second(mine),
        per_second(least),
        min(least) / min(mine),
        statistics.median(least) / statistics.median(mine),
        _cpu(floor) / _cpu(measured),
        None if target is None else Target(target, at_least=True),
        _raw(measured, floor) | {unit: amount},
        note,
    )


def shown(seconds: Sequence[float]) -> str:
    """Return the best, and the median in brackets."""
    best, middle = min(seconds), statistics.median(seconds)
    if best < 1:
        return f"{best * 1e3:.1f} ({middle * 1e3:.1f}) ms"
    return f"{best:.2f} ({middle:.2f}) s"


def _walls(every: Sequence[Took]) -> list[float]:
    return [each.wall for each in every]


def _cpu(every: Sequence[Took]) -> float:
    return max(1e-9, min(each.cpu for each in every))


def _raw(measured: Sequence[Took], floor: Sequence[Took]) -> dict[str, Any]:
    return {
        f"{name}_{kind}_seconds": [getattr(each, kind) for each in every]
        for name, every in (("measured", measured), ("floor", floor))
        for kind in ("wall", "cpu")
    }


def _short(value: float) -> str:
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f}{letter}"
    return f"{value:.0f}"


def run_async(awaitable: Any) -> Any:
    """Run a coroutine to its end in a loop of its own."""
    return asyncio.run(awaitable)
