"""Reads of a lake, planning included, beside Polars reading the same rows from one file.

A lake is opened afresh for each read, so that its Delta logs are read too; lines that say
*held open* keep one. The floor is one sorted LZ4 Parquet file with the row groups of
silver.bars: for a series-year the file of that year, for a series-day the day filtered out
of that file, and, for information, a file of that day alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

import lake
from benchmarks.data import SYMBOLS, candidates, instrument, span_of_days, tape_bars
from benchmarks.lakes import EndingNow, fill, observe, publish_frame, work_at
from benchmarks.measure import Result, alternate, cost, timed
from contracts.tables import BARS
from contracts.time import Span
from lake.snapshots import create_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.measure import Options
    from contracts.time import SteppedClock

END = datetime(2026, 9, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Reads:
    """One lake, the span that counts as its year, and the lines measured on it."""

    root: Path
    clock: SteppedClock
    year: Span
    rounds: int
    lines: list[Result] = field(default_factory=list)

    @property
    def day(self) -> Span:
        """A day in the middle of the year."""
        start = self.year.start + self.year.duration // 2 // DAY * DAY
        return Span(start, start + DAY)

    def read(self, span: Span, held: lake.Lake | None = None, **options: Any) -> pl.DataFrame:
        """Return the series' bars in a span, of a lake opened for it unless one is held."""
        snapshot = options.pop("snapshot", None)
        opened = held or lake.open(self.root, snapshot=snapshot, clock=self.clock)
        asked: dict[str, Any] = {"timeframe": "1m", "start": span.start, "end": span.end}
        return opened.bars(instrument(SYMBOLS[0]), **asked, **options).collect()

    def file(self, name: str, rows: pl.DataFrame) -> Path:
        """Write rows to one file as a floor."""
        path = self.root.parent / f"{self.root.name}-{name}.parquet"
        rows.write_parquet(path, compression="lz4", row_group_size=BARS.row_group_rows)
        return path

    def compare(
        self,
        what: str,
        target: float | None,
        subject: Callable[[], pl.DataFrame],
        floor: Callable[[], pl.DataFrame],
        note: str = "",
    ) -> None:
        """Add a line; both must return the same rows where the floor has all columns."""
        found, expected = subject(), floor()
        if found.height == 0 or found.height != expected.height:
            raise AssertionError(f"{what}: {found.height} rows, not {expected.height}")
        took = alternate(
            self.rounds,
            {"tidemark": lambda: timed(subject), "floor": lambda: timed(floor)},
        )
        line = cost(what, took["tidemark"], took["floor"], target=target, note=note)
        self.lines.append(line)


def run(options: Options) -> list[Result]:
    days = options.pick(tiny=3, default=365)
    appends = options.pick(tiny=4, default=200, slow=2_000)
    end = END + appends * HOUR
    bars = {
        symbol: tape_bars(seed, Span(END - timedelta(days=days), end))
        for seed, symbol in enumerate(SYMBOLS)
    }
    stored = {symbol: frame.filter(pl.col("open_time") < END) for symbol, frame in bars.items()}
    root = options.folder / "lake"
    clock = fill(root, stored)
    rounds = options.pick(tiny=1, default=15, slow=25)
    before = Reads(root, clock, span_of_days(END, days), rounds)
    _plain(before, "")
    _append_hourly(before, bars, appends)
    after = Reads(root, clock, span_of_days(end, days), rounds)
    _plain(after, f", after {appends} hourly appends")
    _known(after)
    return before.lines + after.lines


def _plain(reads: Reads, suffix: str) -> None:
    year, day = reads.year, reads.day
    rows = reads.read(year)
    file = reads.file("year", rows)
    day_file = reads.file("day", reads.read(day))
    held = lake.open(reads.root, clock=reads.clock)
    inside = pl.col("open_time").is_between(day.start, day.end, closed="left")

    def whole_file() -> pl.DataFrame:
        return pl.scan_parquet(file).collect()

    def filtered() -> pl.DataFrame:
        return pl.scan_parquet(file).filter(inside).collect()

    def day_alone() -> pl.DataFrame:
        return pl.scan_parquet(day_file).collect()

    reads.compare(f"series-year{suffix}", 1.5, lambda: reads.read(year), whole_file)
    reads.compare(
        f"series-year, held open{suffix}", 1.5, lambda: reads.read(year, held), whole_file
    )
    reads.compare(f"series-day{suffix}", 2.0, lambda: reads.read(day), filtered)
    reads.compare(f"series-day, held open{suffix}", 2.0, lambda: reads.read(day, held), filtered)
    reads.compare(
        f"series-day, held open, to a file of that day{suffix}",
        None,
        lambda: reads.read(day, held),
        day_alone,
    )


def _append_hourly(reads: Reads, bars: dict[str, pl.DataFrame], appends: int) -> None:
    """Append an hour of all symbols at a time, as hourly updates do."""
    work = work_at(reads.root, EndingNow(reads.clock, END + appends * HOUR))
    every = pl.concat([candidates(frame, symbol) for symbol, frame in bars.items()])
    fresh = every.filter(pl.col("open_time") >= END)
    by_hour = fresh.with_columns(hour=pl.col("open_time").dt.truncate("1h")).partition_by(
        "hour", include_key=False, as_dict=True
    )
    for _, hour in sorted(by_hour.items()):
        reads.clock.step(HOUR)
        publish_frame(work, hour.sort("instrument_id", "open_time"))
    for symbol in SYMBOLS:
        observe(work, symbol, Span(END, END + appends * HOUR))


def _known(reads: Reads) -> None:
    """Revise 0.1 % of the bars, then read what was known before, and a snapshot of it."""
    year = reads.year
    before = reads.clock.known()
    rows = reads.read(year)
    file = reads.file("known", rows)
    reads.clock.step(HOUR)
    work = work_at(reads.root, reads.clock)
    revised = rows.drop("known_from").filter(pl.col("open_time").hash(1) % 1000 == 0)
    done = None
    for part in revised.partition_by("year", maintain_order=True):
        done = publish_frame(work, part.with_columns(pl.col("volume") * 2))
    if done is None or not done.revised:
        raise AssertionError("nothing was revised")
    if not reads.read(year, known_at=before).equals(rows):
        raise AssertionError("a read at known_at shows other rows than were known")
    pinned = create_snapshot(work.tables).snapshot_id
    share = f"0.1 % revised ({revised.height} bars)"

    def whole_file() -> pl.DataFrame:
        return pl.scan_parquet(file).collect()

    against = "the floor is one file of the rows that were known"
    held = lake.open(reads.root, clock=reads.clock)
    subjects: list[tuple[str, float, Callable[[], pl.DataFrame]]] = [
        ("known_at", 2.5, lambda: reads.read(year, known_at=before)),
        ("known_at, held open", 2.5, lambda: reads.read(year, held, known_at=before)),
        ("snapshot, known_at", 2.5, lambda: reads.read(year, known_at=before, snapshot=pinned)),
        ("snapshot", 1.5, lambda: reads.read(year, snapshot=pinned)),
    ]
    for what, target, subject in subjects:
        reads.compare(f"series-year, {what}, {share}", target, subject, whole_file, note=against)
    reads.compare(
        f"series-year, known_at, to the plain read, {share}",
        None,
        lambda: reads.read(year, known_at=before),
        lambda: reads.read(year),
    )
