"""Snapshots: what pinning, opening, verifying, reading and comparing them costs.

``create`` is held against opening the same tables, reading their add actions and asking for
the existence of each file; ``open`` against a tenth of a second; ``verify`` against
``sha256sum`` of the same files; a pinned scan against the same scan of the heads.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import DeltaTable

import lake
from benchmarks.data import MINUTE, SYMBOLS, candidates, instrument, span_of_days, tape_bars
from benchmarks.lakes import fill, publish_frame, work_at
from benchmarks.measure import Result, Took, alternate, cost, rate, shown, timed
from benchmarks.measure import Target as Bound
from contracts.tables import BARS, RESPONSES, TABLES
from contracts.time import Span, SteppedClock
from lake.snapshots import MEMBERS, create_snapshot
from lake.sources import Tables
from lake.tables import Change
from lake.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.measure import Options
    from contracts.spec import TableSpec
    from flows.work import Work
    from lake.manifest import Manifest
    from lake.tables import View

END = datetime(2026, 9, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPENED_WITHIN = 0.1


def run(options: Options) -> list[Result]:
    return [
        _create(options),
        _open(options),
        *_read(options),
    ]


def _create(options: Options) -> Result:
    """Pin all tables, thousands of files in all; each round pins a state that is new."""
    files = options.pick(tiny=28, default=2_000, slow=5_000)
    rounds = options.pick(tiny=1, default=8)
    root = options.folder / "wide"
    work = work_at(root, SteppedClock(END))
    for name in MEMBERS:
        _many_files(work, TABLES[name], files // len(MEMBERS))
    number = 0

    def pinned() -> Took:
        nonlocal number
        number += 1
        work.tables.clock.step(HOUR)  # type: ignore[attr-defined]
        _many_files(work, RESPONSES, 1, first=files + number)
        fresh = Tables(work.store, work.clock)
        made: list[Manifest] = []
        took = timed(lambda: made.append(create_snapshot(fresh)))
        held = sum(len(table["files"]) for table in made[0].tables.values())
        if held < files // len(MEMBERS) * len(MEMBERS):
            raise AssertionError(f"pinned {held} files")
        return took

    def floor() -> Took:
        return timed(lambda: _opened_and_looked_up(work))

    took = alternate(rounds, {"tidemark": pinned, "floor": floor})
    what = f"create, {len(MEMBERS)} tables, {files} files"
    return cost(what, took["tidemark"], took["floor"], target=2.0)


def _many_files(work: Work, spec: TableSpec, count: int, *, first: int = 0) -> None:
    """Commit so many files of a row each."""
    frames = [_row(spec, first + number) for number in range(count)]
    work.table(spec.name).transact("benchmark", lambda _: Change(write=frames))


def _row(spec: TableSpec, number: int) -> pl.DataFrame:
    """Return a row that has the types of a table, all rows of one partition."""

    def value(name: str, dtype: pl.DataType) -> Any:
        if name in spec.partition_by:
            number_like = {"year": 2026}
            return number_like.get(name, "2026-09-01" if name == "date" else "benchmark")
        if isinstance(dtype, pl.Datetime):
            return END - timedelta(days=1) + number * MINUTE
        if isinstance(dtype, pl.List):
            return [f"text {number}"]
        return f"text {number}" if dtype == pl.String else number

    names = {name: [value(name, dtype)] for name, dtype in spec.schema.items()}
    return pl.DataFrame([pl.Series(name, told, strict=False) for name, told in names.items()]).cast(
        dict(spec.schema)
    )


def _opened_and_looked_up(work: Work) -> int:
    there = 0
    for name in MEMBERS:
        table = DeltaTable(work.store.uri_of(TABLES[name].path))
        paths = pl.DataFrame(table.get_add_actions(flatten=True))["path"]
        there += sum(work.store.size(f"{TABLES[name].path}/{path}") is not None for path in paths)
    return there


def _open(options: Options) -> Result:
    """Open a lake at a snapshot with many commits behind it, and resolve its bars."""
    commits = options.pick(tiny=5, default=500, slow=10_000)
    root = options.folder / "deep"
    clock = fill(root, {SYMBOLS[0]: tape_bars(0, span_of_days(END, 1))})
    work = work_at(root, clock)
    pinned = create_snapshot(work.tables).snapshot_id
    for number in range(commits):
        work.table(BARS.name).transact("benchmark", lambda view, n=number: _touched(view, n))

    def opened() -> Took:
        return timed(lambda: lake.open(root, snapshot=pinned).scan(BARS.name))

    took = [opened() for _ in range(options.pick(tiny=2, default=30))][1:]
    walls = [each.wall for each in took]
    return Result(
        f"open at a snapshot, {commits} commits later",
        shown(walls),
        f"{OPENED_WITHIN * 1e3:.0f} ms",
        min(walls) / OPENED_WITHIN,
        sorted(walls)[len(walls) // 2] / OPENED_WITHIN,
        target=Bound(1.0),
        raw={"seconds": walls},
    )


def _touched(view: View, number: int) -> Change:
    """Replace the file that the commit before wrote, so that commits grow and files do not."""
    before = [entry for entry in view.files if entry.partition["venue"] == "benchmark"]
    return Change(write=[_row(BARS, number)], remove=before)


def _read(options: Options) -> Iterator[Result]:
    days = options.pick(tiny=3, default=365)
    rounds = options.pick(tiny=1, default=15)
    root = options.folder / "lake"
    symbols = SYMBOLS[:2]
    bars = {symbol: tape_bars(seed, span_of_days(END, days)) for seed, symbol in enumerate(symbols)}
    clock = fill(root, bars)
    work = work_at(root, clock)
    first = create_snapshot(work.tables)
    yield _verified(work, first, rounds)
    yield _scanned(root, first, span_of_days(END, days), rounds, clock)
    clock.step(HOUR)
    day = bars[symbols[0]].filter(pl.col("open_time") >= END - timedelta(days=1))
    publish_frame(work, candidates(day, symbols[0]).with_columns(pl.col("volume") * 2))
    yield _compared(root, first, create_snapshot(work.tables), rounds)


def _verified(work: Work, manifest: Manifest, rounds: int) -> Result:
    paths = [str(work.store.uri_of(path)) for path in manifest.files]
    size = sum(manifest.files.values())

    def sums() -> object:
        return subprocess.run(["sha256sum", *paths], check=True, capture_output=True)

    took = alternate(
        rounds,
        {
            "tidemark": lambda: timed(lambda: verify(work.store, manifest)),
            "floor": lambda: timed(sums),
        },
    )
    return rate(
        f"verify, {len(paths)} files",
        took["tidemark"],
        took["floor"],
        amount=size,
        unit="B",
        target=0.8,
        note="the floor is `sha256sum` in a process of its own, so its CPU is not counted",
    )


def _scanned(
    root: Path, manifest: Manifest, span: Span, rounds: int, clock: SteppedClock
) -> Result:
    heads = lake.open(root, clock=clock)
    pinned = lake.open(root, snapshot=manifest.snapshot_id)
    name = instrument(SYMBOLS[0])
    asked: dict[str, Any] = {"timeframe": "1m", "start": span.start, "end": span.end}
    if not heads.bars(name, **asked).collect().equals(pinned.bars(name, **asked).collect()):
        raise AssertionError("the snapshot shows other rows than the heads")
    took = alternate(
        rounds,
        {
            "pinned": lambda: timed(lambda: pinned.bars(name, **asked).collect()),
            "heads": lambda: timed(lambda: heads.bars(name, **asked).collect()),
        },
    )
    what = "series-year, pinned / heads, both held open"
    return cost(what, took["pinned"], took["heads"], target=1.1)


def _compared(root: Path, first: Manifest, second: Manifest, rounds: int) -> Result:
    """Compare two snapshots; the floor reads the files in which they differ, and no other."""

    def told(manifest: Manifest) -> set[str]:
        return {each["path"] for each in manifest.tables[BARS.name]["files"]}

    differing = [str(root / BARS.path / path) for path in told(first) ^ told(second)]

    def files() -> object:
        return [pl.read_parquet(path, hive_partitioning=False) for path in differing]

    def compared() -> object:
        from lake.diff import diff_snapshots
        from lake.store import Store

        return diff_snapshots(Store(root), first, second)

    took = alternate(rounds, {"tidemark": lambda: timed(compared), "floor": lambda: timed(files)})
    what = f"diff, a day revised: {len(differing)} of {len(told(second))} files differ"
    note = "the floor reads every column of the files that differ"
    return cost(what, took["tidemark"], took["floor"], target=None, note=note)
