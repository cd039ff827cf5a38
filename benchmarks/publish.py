"""Publish of fresh 1m bars, all audits and the contract on, beside a bare Parquet write.

What is timed is ``audit`` and ``publish`` as ingest calls them, the lake's tables made on
the way and files forced to disk; the floor writes the same frames with the same codec and
row groups, one file per publish, and forces nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.data import MINUTE, candidates, stream, tape_bars
from benchmarks.lakes import work_at
from benchmarks.measure import Result, alternate, rate, timed
from contracts.tables import BARS
from contracts.time import Span, SteppedClock
from flows.audit import audit
from flows.publish import publish

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.measure import Options, Took

START = datetime(2025, 1, 1, tzinfo=UTC)

# What one publish takes: for each of its streams symbol, span and bars.
Call = list[tuple[str, Span, pl.DataFrame]]


def run(options: Options) -> list[Result]:
    rows = options.pick(tiny=500, default=500_000)
    span = Span(START, START + rows * MINUTE)
    several = options.pick(tiny=3, default=20)
    symbols = [f"C{number:02}/USDT" for number in range(several)]
    held = [
        (symbol, span, candidates(tape_bars(seed, span), symbol))
        for seed, symbol in enumerate(symbols)
    ]
    rounds = options.pick(tiny=1, default=7, slow=11)
    few = options.pick(tiny=1, default=3, slow=5)
    lines = [_line(options, "1 publish of 2 instruments", [held[:2]], rounds, 0.3)]
    each = [[one] for one in held]
    lines.append(_line(options, f"{several} publishes of 1 instrument", each, few, 0.4))
    if options.size != "default":
        lines.append(_line(options, f"1 publish of {several} instruments", [held], few, 0.4))
    return lines


def _line(options: Options, what: str, calls: Sequence[Call], rounds: int, target: float) -> Result:
    rows = sum(frame.height for call in calls for _, _, frame in call)
    folders = (options.folder / f"publish-{number}" for number in itertools.count())
    took = alternate(
        rounds,
        {
            "tidemark": lambda: _published(next(folders), calls, rows),
            "floor": lambda: _written(next(folders), _frames(calls)),
        },
    )
    millions = f"{rows / 1e6:g} M rows, {what}"
    return rate(millions, took["tidemark"], took["floor"], amount=rows, unit="rows", target=target)


def _frames(calls: Sequence[Call]) -> list[pl.DataFrame]:
    return [pl.concat([frame for _, _, frame in call], rechunk=True) for call in calls]


def _published(folder: Path, calls: Sequence[Call], rows: int) -> Took:
    clock = SteppedClock(datetime(2026, 6, 1, tzinfo=UTC))
    work = work_at(folder, clock)
    new = 0

    async def every() -> None:
        nonlocal new
        for call in calls:
            judged = [await audit(stream(symbol), span, frame) for symbol, span, frame in call]
            new += (await publish(work, judged)).new
            clock.step(timedelta(seconds=1))

    took = timed(lambda: asyncio.run(every()))
    if new != rows:
        raise AssertionError(f"published {new} of {rows} rows")
    shutil.rmtree(folder)
    return took


def _written(folder: Path, frames: Sequence[pl.DataFrame]) -> Took:
    folder.mkdir()
    paths: Iterator[Path] = (folder / f"{number}.parquet" for number in itertools.count())

    def every() -> None:
        for frame in frames:
            frame.write_parquet(next(paths), compression="lz4", row_group_size=BARS.row_group_rows)

    took = timed(every)
    shutil.rmtree(folder)
    return took
