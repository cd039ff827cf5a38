"""The hourly update: its cost must depend neither on the history stored nor on its own past.

Two lakes of six symbols are updated hour by hour from one exchange in this process, each
update with a run of its own that opens the lake's tables afresh, as a scheduled one does.
One lake holds years of 1m bars, the other a month. The second is copied after a few updates;
when it has seen many, the copy and itself take turns for a whole day, at the same hours of
the day, since what lands within a day is compared with that day's.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.data import MINUTE, SYMBOLS, memory_tape, tape_bars
from benchmarks.lakes import EndingNow, fill, work_at
from benchmarks.measure import Result, alternate_async, cost, run_async, timed_async
from contracts.names import Venue
from contracts.time import Span
from flows.backfill import Access, update
from flows.replay.clock import ReplayClock
from flows.replay.server import ReplayExchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.measure import Options, Took

START = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
YOUNG = 20


@dataclass
class Updated:
    """A lake, and how many hourly updates it has seen."""

    root: Path
    symbols: tuple[str, ...]
    exchange: ReplayExchange
    end: datetime
    seen: int = 0

    async def next(self) -> Took:
        """Bring the lake an hour further; return how long it took."""
        self.seen += 1
        self.exchange.clock.set(START + self.seen * HOUR + MINUTE)
        access = Access(Venue.BINANCE, self.exchange.base_url, limit=False)
        clock = EndingNow(self.exchange.clock, self.end)
        new = 0

        async def run() -> None:
            nonlocal new
            report = await update(work_at(self.root, clock, make=False), access)
            new = report.new
            for failure in report.failures:
                raise failure

        took = await timed_async(run)
        if new != 60 * len(self.symbols):
            raise AssertionError(f"update {self.seen} of {self.root} stored {new} bars")
        return took

    def copy(self, root: Path) -> Updated:
        """Return the lake's copy at another root."""
        shutil.copytree(self.root, root)
        return Updated(root, self.symbols, self.exchange, self.end, self.seen)


def run(options: Options) -> list[Result]:
    lines: list[Result] = run_async(_run(options))
    return lines


async def _run(options: Options) -> list[Result]:
    symbols = options.pick(tiny=SYMBOLS[:2], default=SYMBOLS)
    long, short = options.pick(tiny=4, default=8 * 365 + 2), options.pick(tiny=2, default=30)
    turns = options.pick(tiny=1, default=24)
    many = options.pick(tiny=4, default=200, slow=2_000)
    end = START + (many + YOUNG + 4 * turns) * HOUR
    span = Span(START - long * DAY, end)
    bars = {symbol: tape_bars(seed, span) for seed, symbol in enumerate(symbols)}
    fill(options.folder / "long", _between(bars, START - long * DAY, START))
    fill(options.folder / "short", _between(bars, START - short * DAY, START))
    fresh = _between(bars, START - DAY, end)
    async with ReplayExchange(
        memory_tape(fresh), clock=ReplayClock(START + MINUTE), limits=False
    ) as exchange:
        aged = Updated(options.folder / "short", symbols, exchange, end)
        lines = [await _history(options, aged, turns)]
        lines.append(await _past(options, aged, turns, many))
    return lines


async def _history(options: Options, short: Updated, turns: int) -> Result:
    """Compare years of history with a month; the short lake is copied, and left as it was."""
    long = Updated(options.folder / "long", short.symbols, short.exchange, short.end)
    other = short.copy(options.folder / "short-too")
    took = await alternate_async(turns, {"long": long.next, "short": other.next})
    for lake in (long, other):
        shutil.rmtree(lake.root)
    years = options.pick(tiny="4 days", default="8 years")
    month = options.pick(tiny="2 days", default="1 month")
    what = f"{len(short.symbols)} symbols, {years} stored / {month} stored"
    note = f"{turns} updates of each lake in turns; the ratio is of the means"
    mean = statistics.fmean
    return cost(what, took["long"], took["short"], target=1.2, note=note, judge=mean)


async def _past(options: Options, aged: Updated, turns: int, many: int) -> Result:
    """Compare a lake that has seen many updates with its own state after a few."""
    young_from = options.pick(tiny=1, default=YOUNG - turns // 2)
    while aged.seen < young_from:
        await aged.next()
    young = aged.copy(options.folder / "young")
    # The same hours of the day on both sides.
    old_from = young_from + (many - young_from) // 24 * 24 if turns == 24 else many
    while aged.seen < old_from:
        await aged.next()
        if aged.seen % 100 == 0:
            print(f"  update {aged.seen} of {old_from}", file=sys.stderr, flush=True)
    took = await alternate_async(turns, {"old": aged.next, "young": young.next}, warm=False)
    what = f"after {old_from} updates / after {young_from}"
    note = "`--slow` goes on to 2,000 updates"
    mean = statistics.fmean
    return cost(what, took["old"], took["young"], target=1.2, note=note, judge=mean)


def _between(
    bars: Mapping[str, pl.DataFrame], start: datetime, end: datetime
) -> dict[str, pl.DataFrame]:
    inside = pl.col("open_time").is_between(start, end, closed="left")
    return {symbol: frame.filter(inside) for symbol, frame in bars.items()}
