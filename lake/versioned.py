"""Publish bars: append what is new, replace what was revised, keep what was replaced.

``silver.bars`` holds current rows only; a superseded row is first copied, verbatim, to
``silver.bar_revisions``, and only then replaced. A writer that dies in between leaves a copy
whose original still stands; readers drop it, and the next run finds the copy there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import InvariantError
from contracts.tables import BARS
from lake.appends import (
    append_missing,
    append_to_partition,
    overlapping,
    partitions,
    scan_near,
    sorted_rows,
)
from lake.knowledge import check_clock, known_from_after
from lake.layout import file_frames
from lake.scan import collect_files, read_files
from lake.tables import Change
from lake.transforms.bars import ROW_KEY, compare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lake.parts import FileEntry
    from lake.store import Store
    from lake.tables import Table, View


@dataclass(frozen=True, slots=True)
class Published:
    """What came of a publish.

    Attributes:
        new: Rows appended.
        revised: Rows that replaced another version.
        identical: Rows that were stored already.
        refused: Rows of a lower-ranked source that contradict a stored row; not written.
        known_from: Knowledge time of the rows written, or None where none was.
        version: Version of silver.bars that holds them.
    """

    new: int
    revised: int
    identical: int
    refused: pl.DataFrame
    known_from: datetime | None
    version: int


class _Plan:
    """The comparison behind one attempt at a commit."""

    def __init__(self, candidates: pl.DataFrame, known: datetime, app: str) -> None:
        self.candidates = candidates
        self.known = known
        self.app = app
        self.new = self.revised = self.identical = 0
        self.refused: list[pl.DataFrame] = []
        self.newest: datetime | None = None

    def result(self, version: int) -> Published:
        refused = pl.concat(self.refused) if self.refused else self.candidates.clear()
        return Published(self.new, self.revised, self.identical, refused, self.newest, version)


def _app_of(candidates: pl.DataFrame) -> str:
    """Return the unit of writing: one per venue and timeframe."""
    names = ("venue", "timeframe")
    first = [candidates[name][0] for name in names]
    if not all((candidates[name] == told).all() for name, told in zip(names, first, strict=True)):
        raise InvariantError("a batch of bars of several venues or timeframes")
    return f"publish/{first[0]}/{first[1]}"


def publish_bars(
    bars: Table, revisions: Table, candidates: pl.DataFrame, *, known: datetime
) -> Published:
    """Bring silver.bars to what ``candidates`` say, keeping every version.

    Args:
        bars: silver.bars.
        revisions: silver.bar_revisions.
        candidates: Columns of silver.bars but known_from, unique keys, of one venue and
            timeframe; the contract has been validated.
        known: The known clock's time.

    Raises:
        ClockRegressionError: ``known`` is more than five minutes behind the table.
    """
    if candidates.is_empty():
        return _Plan(candidates, known, "").result(bars.head().version)
    app = _app_of(candidates)
    attempt = _Plan(candidates, known, app)

    def plan(view: View) -> Change:
        nonlocal attempt
        attempt = _Plan(candidates, known, app)
        check_clock(view, known)
        write: list[pl.DataFrame] = []
        remove: list[FileEntry] = []
        for part in partitions(BARS, candidates):
            files = view.partition(part.select(BARS.partition_by).row(0, named=True))
            written, removed = _plan_partition(bars.store, revisions, files, part, attempt)
            write += written
            remove += removed
        return Change(write, remove)

    done = bars.transact(app, plan)
    return attempt.result(done.version)


def _plan_partition(
    store: Store,
    revisions: Table,
    files: Sequence[FileEntry],
    part: pl.DataFrame,
    attempt: _Plan,
) -> tuple[list[pl.DataFrame], list[FileEntry]]:
    near = collect_files(store, BARS, files, scan_near(store, BARS, files, part))
    found = compare(part, near)
    known_from = known_from_after(attempt.known, found.superseded)
    attempt.new += found.new.height
    attempt.revised += found.revised.height
    attempt.identical += found.identical
    if not found.refused.is_empty():
        attempt.refused.append(found.refused)
    if not (found.new.is_empty() and found.revised.is_empty()):
        attempt.newest = max(known_from, attempt.newest or known_from)
    if not found.superseded.is_empty():
        append_missing(revisions, found.superseded, app=attempt.app)
    write, rewritten = _replace(store, files, _dated(found.revised, known_from))
    added, taken = append_to_partition(
        store, BARS, files, _dated(found.new, known_from), rewritten=rewritten
    )
    return write + added, rewritten + taken


def _replace(
    store: Store, files: Sequence[FileEntry], revised: pl.DataFrame
) -> tuple[list[pl.DataFrame], list[FileEntry]]:
    """Return new contents for the files that hold the rows that ``revised`` replaces."""
    write: list[pl.DataFrame] = []
    remove: list[FileEntry] = []
    if revised.is_empty():
        return write, remove
    for entry in overlapping(BARS, files, revised):
        rows = read_files(store, BARS, [entry])
        kept = rows.join(revised.select(ROW_KEY), on=ROW_KEY, how="anti", maintain_order="left")
        if kept.height == rows.height:
            continue
        replacing = revised.join(rows.select(ROW_KEY), on=ROW_KEY, how="semi")
        write += file_frames(BARS, sorted_rows(BARS, pl.concat([kept, replacing])))
        remove.append(entry)
    return write, remove


def _dated(rows: pl.DataFrame, known_from: datetime) -> pl.DataFrame:
    dtype = BARS.by_name["known_from"].dtype
    return rows.with_columns(pl.lit(known_from, dtype).alias("known_from")).select(
        BARS.schema.names()
    )
