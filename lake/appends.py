"""Append rows that are not there yet: how every table but the bars is written.

Doing it twice makes no second commit, and two writers at once store no row twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lake.layout import file_frames, growing, is_sealed, mergeable, settled, tail
from lake.scan import collect_files, read_files, scan_files
from lake.tables import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.spec import TableSpec
    from lake.parts import FileEntry
    from lake.store import Store
    from lake.tables import Table, View


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an append; the version is None where no row was given."""

    rows: int
    version: int | None
    changed: bool


def append_missing(table: Table, frame: pl.DataFrame, *, app: str) -> Appended:
    """Append the rows of ``frame`` whose key the table does not hold.

    Args:
        table: The table; ``frame`` has its schema and unique keys.
        frame: The rows.
        app: The unit of writing; every writer of the same partitions uses the same.
    """
    spec = table.spec
    if frame.is_empty():
        return Appended(0, None, changed=False)
    rows = 0
    unique = spec.check_schema(frame).unique(
        subset=list(spec.key), keep="first", maintain_order=True
    )

    def plan(view: View) -> Change:
        nonlocal rows
        rows = 0
        write: list[pl.DataFrame] = []
        remove: list[FileEntry] = []
        for part in partitions(spec, unique):
            files = view.partition(part.select(spec.partition_by).row(0, named=True))
            new = part.join(
                stored_keys(table.store, spec, files, part),
                on=spec.key,
                how="anti",
                nulls_equal=True,
            )
            rows += new.height
            written, taken = append_to_partition(table.store, spec, files, new)
            write += written
            remove += taken
        return Change(write, remove)

    done = table.transact(app, plan)
    return Appended(rows if done.changed else 0, done.version, done.changed)


def append_to_partition(
    store: Store,
    spec: TableSpec,
    files: Sequence[FileEntry],
    new: pl.DataFrame,
    *,
    rewritten: Sequence[FileEntry] = (),
) -> tuple[list[pl.DataFrame], list[FileEntry]]:
    """Return the frames to write and the files to remove so that ``new`` joins a partition.

    Args:
        store: Where the files are.
        spec: The table.
        files: All files of the partition.
        new: Rows of that partition.
        rewritten: Files that the same write replaces anyway; they are left alone.
    """
    if new.is_empty():
        return [], []
    joining = _Joining(store, spec, files, rewritten)
    new = sorted_rows(spec, new)
    series, rest = settled(spec, new)
    if rest:
        series, rest = settled(spec, joining.rows_of(tail(spec, joining.files), new))
    frames = list(rest)
    if series or any(is_sealed(spec, frame) for frame in rest):
        split, mixed = settled(spec, joining.rows_of(mergeable(spec, joining.files)))
        frames += mixed
        for name, rows in split.items():
            series[name] = joining.rows_of([], rows, series.get(name))
    frames += [
        joining.rows_of(growing(spec, joining.files, name), rows) for name, rows in series.items()
    ]
    return [piece for frame in frames for piece in file_frames(spec, frame)], joining.taken


class _Joining:
    """The files of a partition that an append takes along."""

    def __init__(
        self,
        store: Store,
        spec: TableSpec,
        files: Sequence[FileEntry],
        rewritten: Sequence[FileEntry],
    ) -> None:
        gone = {entry.path for entry in rewritten}
        self.store, self.spec = store, spec
        self.files = [entry for entry in files if entry.path not in gone]
        self.taken: list[FileEntry] = []

    def rows_of(self, more: Sequence[FileEntry], *rows: pl.DataFrame | None) -> pl.DataFrame:
        """Take files along; return their rows and ``rows``, which are each sorted, in order."""
        every = [frame for frame in rows if frame is not None]
        if more:
            self.taken.extend(more)
            every.append(read_files(self.store, self.spec, more))
        if len(every) < 2 and len(more) < 2:
            return every[0] if every else self.spec.empty()
        return sorted_rows(self.spec, pl.concat(every))


def sorted_rows(spec: TableSpec, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows in the table's order; rows that are in order already are not moved."""
    return rows if _is_sorted(rows, spec.sort_by) else rows.sort(spec.sort_by, maintain_order=True)


def _is_sorted(rows: pl.DataFrame, by: Sequence[str]) -> bool:
    """Tell whether rows are surely in order; nulls make it unsure."""
    in_order: pl.Expr = pl.lit(value=True)
    for name in reversed(by):
        here, before = pl.col(name), pl.col(name).shift(1)
        in_order = (here > before) | ((here == before) & in_order)
    found = rows.lazy().select(in_order.slice(1).fill_null(value=False).all())
    return bool(found.collect(engine="streaming").item())


def partitions(spec: TableSpec, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Split rows by partition; rows of one partition are not copied."""
    first = rows.row(0)
    places = [rows.columns.index(name) for name in spec.partition_by]
    if all((rows.to_series(at) == first[at]).all() for at in places):
        return [rows]
    return rows.partition_by(spec.partition_by, maintain_order=True)


def stored_keys(
    store: Store, spec: TableSpec, files: Sequence[FileEntry], frame: pl.DataFrame
) -> pl.DataFrame:
    """Return the keys of stored rows that may equal a key of ``frame``, one partition."""
    near = scan_near(store, spec, files, frame).select(spec.key)
    return collect_files(store, spec, files, near)


def scan_near(
    store: Store, spec: TableSpec, files: Sequence[FileEntry], frame: pl.DataFrame
) -> pl.LazyFrame:
    """Return the stored rows inside the box that the sort columns of ``frame`` span."""
    near = overlapping(spec, files, frame)
    if not near:
        return spec.empty().lazy()
    box = [
        pl.col(name).is_between(pl.lit(low), pl.lit(high))
        for name, (low, high) in _box(spec, frame).items()
        if low is not None
    ]
    return scan_files(store, spec, near).filter(*box)


def overlapping(
    spec: TableSpec, files: Sequence[FileEntry], frame: pl.DataFrame
) -> list[FileEntry]:
    """Return the files whose sort columns may hold rows near those of ``frame``."""
    box = _box(spec, frame)
    return [
        entry
        for entry in files
        if all(
            entry.may_hold(name, low, high) for name, (low, high) in box.items() if low is not None
        )
    ]


def _box(spec: TableSpec, frame: pl.DataFrame) -> dict[str, tuple[object, object]]:
    names = [name for name in spec.sort_by if name in spec.statistics_columns and name in spec.key]
    names = names or [name for name in spec.sort_by if name in spec.statistics_columns]
    found = frame.select(
        *(pl.col(name).min().alias(f"low {name}") for name in names),
        *(pl.col(name).max().alias(f"high {name}") for name in names),
    ).row(0, named=True)
    return {name: (found[f"low {name}"], found[f"high {name}"]) for name in names}
