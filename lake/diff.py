"""What two snapshots say differently: rows added, revised and removed.

A manifest names files by what is in them, so only files that one of the two lacks are looked
at, and of those only the ones whose row hashes do not add up to the same sum: rows that a
compaction moved from file to file are neither read nor counted. What is left is read group by
group, a group being files of one partition whose key ranges touch, so memory is bounded by
the largest of them and not by the tables.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import TableNotPinnedError
from contracts.tables import TABLES, table
from lake.manifest import NO_MEMBERS
from lake.rowhash import combine
from lake.scan import read_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from contracts.spec import TableSpec
    from lake.manifest import Manifest
    from lake.parts import FileEntry
    from lake.store import Store

ADDED, REVISED, REMOVED = "added", "revised", "removed"
CHANGES = (ADDED, REVISED, REMOVED)
_BY = ("table", "venue", "instrument_id", "timeframe", "day")
_SUMMARY = {
    "table": pl.String(),
    "venue": pl.String(),
    "instrument_id": pl.String(),
    "timeframe": pl.String(),
    "day": pl.Date(),
    "added": pl.Int64(),
    "revised": pl.Int64(),
    "removed": pl.Int64(),
}


@dataclass(frozen=True)
class Diff:
    """What a snapshot says differently from another.

    Attributes:
        a: The id of the snapshot that is the old one here.
        b: The id of the new one.
        summary: Counts of rows; columns table, venue, instrument_id, timeframe, day, added,
            revised, removed. A column that a table has not is null: bronze.responses has no
            instrument, so its rows count by venue and day. The day is the UTC day of the
            first time in the table's key, or else in its order of rows.
        rows: The rows themselves by table, where they were asked for: ``change``, the columns
            that ``summary`` goes by, the key, and each other column as ``old_NAME`` and
            ``new_NAME``, null where there is no such row.
        left_out: Tables that one of the two snapshots was not to pin.
        files_read: Files that were read.
        bytes_read: Their size.
    """

    a: str
    b: str
    summary: pl.DataFrame
    rows: Mapping[str, pl.DataFrame]
    left_out: tuple[str, ...]
    files_read: int
    bytes_read: int

    @property
    def counts(self) -> dict[str, int]:
        """Rows added, revised and removed in all tables."""
        return {name: int(self.summary[name].sum()) for name in CHANGES}


@dataclass
class Reading:
    """What a comparison has read so far."""

    files: int = 0
    size_bytes: int = 0
    on_progress: Callable[[str, int], None] | None = None

    def count(self, name: str, files: Iterable[FileEntry]) -> None:
        """Count files of a table, and tell."""
        for entry in files:
            self.files += 1
            self.size_bytes += entry.size
        if self.on_progress is not None:
            self.on_progress(name, self.files)


@dataclass(frozen=True)
class _Group:
    """Files of one partition that may hold rows of the same keys, by who has them."""

    old: list[FileEntry] = field(default_factory=list)
    new: list[FileEntry] = field(default_factory=list)

    def split(self, column: str) -> Iterator[_Group]:
        """Cut where the ranges of a key column do not touch: no key is on both sides."""
        both = [(entry, True) for entry in self.old] + [(entry, False) for entry in self.new]
        ends = [(entry.low.get(column), entry.high.get(column)) for entry, _ in both]
        if any(low is None or high is None for low, high in ends):
            yield self
            return
        ordered = sorted(both, key=lambda each: _end(each[0].low, column))
        group, reached = _Group(), None
        for entry, is_old in ordered:
            low, high = _end(entry.low, column), _end(entry.high, column)
            if reached is not None and low > reached:
                yield group
                group = _Group()
            reached = high if reached is None else max(reached, high)
            (group.old if is_old else group.new).append(entry)
        yield group


def _end(bounds: Mapping[str, Any], column: str) -> Any:
    return bounds[column]


def diff_snapshots(
    store: Store,
    a: Manifest,
    b: Manifest,
    *,
    rows: bool = False,
    tables: Sequence[str] | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> Diff:
    """Return what snapshot ``b`` says differently from ``a``.

    Args:
        store: Where the files of both are.
        a: The old one.
        b: The new one.
        rows: Return the rows as well, with old and new values. They are all held in memory;
            ``changed_rows`` hands them out piece by piece.
        tables: Only these tables; all that both pin when None.
        on_progress: Called with the table and the number of files read so far.

    Raises:
        UnknownTableError: No such table.
        TableNotPinnedError: One of ``tables`` is not pinned by both.
        SnapshotIncompleteError: A file that has to be read is missing.
        ChecksumError: It is not what was pinned.
    """
    names, left_out = _compared(a, b, tables)
    reading = Reading(on_progress=on_progress)
    counts: list[pl.DataFrame] = []
    found: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for name in names:
        for changed in changed_rows(store, a, b, name, reading=reading):
            counts.append(_counted(name, changed))
            if rows:
                found[name].append(changed)
    empty = pl.DataFrame(schema=_SUMMARY)
    total = pl.concat([empty, *counts]).group_by(*_BY).sum().sort(*_BY, nulls_last=True)
    held = {name: pl.concat(each) for name, each in found.items()}
    return Diff(
        a.snapshot_id, b.snapshot_id, total, held, left_out, reading.files, reading.size_bytes
    )


def changed_rows(
    store: Store, a: Manifest, b: Manifest, name: str, *, reading: Reading | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table that differ, as ``Diff.rows`` has them, group by group."""
    spec = table(name)
    reading = reading or Reading()
    hashes = {**_row_hashes(a, name), **_row_hashes(b, name)}
    for group in _groups(spec, a.view(name).files, b.view(name).files):
        if _sum(hashes, group.old) == _sum(hashes, group.new):
            continue
        reading.count(name, [*group.old, *group.new])
        old = read_files(store, spec, group.old)
        new = read_files(store, spec, group.new)
        changed = _paired(spec, *_apart(spec, old, new))
        if changed.height:
            yield changed


def day_column(spec: TableSpec) -> str:
    """Return the column whose day rows are counted by."""
    ordered = [*spec.key, *spec.sort_by, spec.known]
    return next(name for name in ordered if isinstance(spec.by_name[name].dtype, pl.Datetime))


def _compared(
    a: Manifest, b: Manifest, tables: Sequence[str] | None
) -> tuple[list[str], tuple[str, ...]]:
    if tables is not None:
        for name in tables:
            a.view(name)
            b.view(name)
        return [name for name in TABLES if name in tables], ()
    names = [name for name in TABLES if name not in NO_MEMBERS]
    told = {name: (_pins(a, name), _pins(b, name)) for name in names}
    both = [name for name, pinned in told.items() if all(pinned)]
    return both, tuple(name for name, pinned in told.items() if any(pinned) and not all(pinned))


def _pins(manifest: Manifest, name: str) -> bool:
    try:
        manifest.view(name)
    except TableNotPinnedError:
        return False
    return True


def _row_hashes(manifest: Manifest, name: str) -> dict[str, str]:
    pinned = manifest.tables.get(name)
    return {told["path"]: told["row_hash"] for told in pinned["files"]} if pinned else {}


def _sum(hashes: Mapping[str, str], files: Iterable[FileEntry]) -> str:
    return combine(hashes[entry.path] for entry in files)


def _groups(
    spec: TableSpec, old: Iterable[FileEntry], new: Iterable[FileEntry]
) -> Iterator[_Group]:
    """Return the files that only one side has, in groups that share no key."""
    before, after = ({entry.path: entry for entry in files} for files in (old, new))
    partitions: dict[tuple[Any, ...], _Group] = defaultdict(_Group)

    def place(entry: FileEntry) -> tuple[Any, ...]:
        return tuple(entry.partition[name] for name in spec.partition_by)

    for path in sorted(before.keys() - after.keys()):
        partitions[place(before[path])].old.append(before[path])
    for path in sorted(after.keys() - before.keys()):
        partitions[place(after[path])].new.append(after[path])
    ranged = [name for name in spec.key if name in spec.statistics_columns]
    for _, whole in sorted(partitions.items(), key=lambda each: str(each[0])):
        groups = [whole]
        for column in ranged:
            groups = [part for group in groups for part in group.split(column)]
        yield from groups


def _apart(
    spec: TableSpec, old: pl.DataFrame, new: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that only one side has, floats being equal where their bits are."""
    left, right = _comparable(spec, old), _comparable(spec, new)
    by = left.columns
    gone = left.with_row_index("_row").join(right, on=by, how="anti", nulls_equal=True)["_row"]
    came = right.with_row_index("_row").join(left, on=by, how="anti", nulls_equal=True)["_row"]
    return old[gone], new[came]


def _comparable(spec: TableSpec, rows: pl.DataFrame) -> pl.DataFrame:
    def column(name: str, dtype: pl.DataType) -> pl.Expr:
        values = pl.col(name)
        if dtype == pl.Float64:
            return values.reinterpret(dtype=pl.UInt64())
        if isinstance(dtype, pl.List):
            return values.list.join("\x1f")
        return values.str.len_bytes() if name in spec.bulky_columns else values

    return rows.select(column(name, dtype) for name, dtype in spec.schema.items())


def _paired(spec: TableSpec, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return old and new rows side by side, and what happened to each key."""
    key = list(spec.key)
    others = [name for name in spec.schema.names() if name not in key]

    def side(rows: pl.DataFrame, prefix: str) -> pl.DataFrame:
        named = (pl.col(name).alias(f"{prefix}_{name}") for name in others)
        return rows.select(*key, *named, pl.lit(value=True).alias(f"_{prefix}"))

    both = side(old, "old").join(
        side(new, "new"), on=key, how="full", coalesce=True, nulls_equal=True
    )
    change = (
        pl.when(pl.col("_old").is_null())
        .then(pl.lit(ADDED))
        .when(pl.col("_new").is_null())
        .then(pl.lit(REMOVED))
        .otherwise(pl.lit(REVISED))
    )
    by = [name for name in _BY[1:-1] if name in spec.by_name and name not in key]
    shown = [name for name in others if name not in spec.partition_by]
    return both.select(
        change.alias("change"),
        *(_either(spec, name).alias(name) for name in by),
        _either(spec, day_column(spec)).dt.date().alias("day"),
        *key,
        *(f"{prefix}_{name}" for name in shown for prefix in ("old", "new")),
    ).sort("day", *key, nulls_last=True)


def _either(spec: TableSpec, name: str) -> pl.Expr:
    return pl.col(name) if name in spec.key else pl.coalesce(f"new_{name}", f"old_{name}")


def _counted(name: str, changed: pl.DataFrame) -> pl.DataFrame:
    """Return the changed rows of one group in numbers."""
    here = [column for column in _BY[1:] if column in changed.columns]
    counts = changed.group_by(here).agg(
        (pl.col("change") == kind).sum().cast(pl.Int64).alias(kind) for kind in CHANGES
    )
    missing = [column for column in _BY[1:] if column not in here]
    return counts.with_columns(
        pl.lit(name).alias("table"), *(pl.lit(None, _SUMMARY[each]).alias(each) for each in missing)
    ).select(list(_SUMMARY))
