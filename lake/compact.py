"""Compaction of closed partitions: fewer files, the same rows.

A partition is closed when no writer adds to it in the ordinary course: bars of a past year,
answers of a past day, notes of a past month. Its files are packed with their neighbours up to
a bound on bytes, and an instrument's rows leave the shared files for the instrument's own.
Every step is one commit under the app transaction of the partition's writers, so a writer
that comes in between makes the step plan again. No step changes a row: the row hashes of the
files that go and of the files that come are compared before anything is committed, so bytes
that have rotted are found, not laundered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import ChecksumError
from contracts.tables import BAR_REVISIONS, BARS, DELETIONS, RESPONSES, RUNS
from lake.appends import sorted_rows
from lake.layout import SEALED_BYTES, by_series, settled
from lake.parts import read_row_hash
from lake.rowhash import combine, frame_hash
from lake.scan import collect_files, read_files, scan_files
from lake.tables import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from contracts.spec import TableSpec
    from lake.parts import FileEntry
    from lake.store import Store
    from lake.tables import Table, View

_SHARED = ""
_SERIES = "instrument_id"


@dataclass(frozen=True, slots=True)
class Packing:
    """What compacting a partition comes to.

    Attributes:
        table_name: The table.
        partition: ``name=value`` of each partition column.
        files: Files that are rewritten; further steps may rewrite some again.
        size_bytes: Their size.
        files_after: Files that come of them in the first steps.
    """

    table_name: str
    partition: str
    files: int
    size_bytes: int
    files_after: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Files that go, and the frames that come for them."""

    remove: list[FileEntry]
    write: list[pl.DataFrame]


def closing_column(spec: TableSpec) -> str | None:
    """Return the partition column by which partitions of a table close, if they do."""
    if spec.name not in _APPS:
        return None
    return next((name for name in ("year", "month", "date") if name in spec.partition_by), None)


def writers_app(spec: TableSpec, partition: Mapping[str, object]) -> str:
    """Return the app transaction that the writers of a partition use."""
    return _APPS[spec.name].format(**partition)


# As lake.versioned, lake.landing, flows.runs and lake.vacuum name them.
_APPS = {
    BARS.name: "publish/{venue}/{timeframe}",
    BAR_REVISIONS.name: "publish/{venue}/{timeframe}",
    RESPONSES.name: "land/{venue}",
    RUNS.name: "runs",
    DELETIONS.name: "deletions",
}


def closed_partitions(view: View, known: datetime) -> list[list[FileEntry]]:
    """Return the files of each closed partition of a table, in the order of the partitions.

    Args:
        view: The table.
        known: The known clock's time; its year, month and day are still open.
    """
    column = closing_column(view.spec)
    if column is None:
        return []
    opened = {"year": known.year, "month": f"{known:%Y-%m}", "date": f"{known:%Y-%m-%d}"}[column]
    grouped: dict[tuple[str, ...], list[FileEntry]] = {}
    for entry in view.files:
        if entry.partition[column] < opened:
            key = tuple(f"{name}={entry.partition[name]}" for name in view.spec.partition_by)
            grouped.setdefault(key, []).append(entry)
    return [grouped[key] for key in sorted(grouped)]


def packing(store: Store, spec: TableSpec, files: Sequence[FileEntry]) -> Packing | None:
    """Return what compacting a partition would do, or None where it is compact."""
    chunks = _chunks(spec, files)
    strays = [] if chunks else _strays(store, spec, files)
    if not chunks and not strays:
        return None
    taken = [entry for chunk in chunks for entry in chunk] or strays
    return Packing(
        spec.name,
        partition_text(spec, files[0]),
        len(taken),
        sum(entry.size for entry in taken),
        len(chunks) or len(strays),
    )


def partition_text(spec: TableSpec, entry: FileEntry) -> str:
    """Return the partition of a file as its folder names it."""
    return "/".join(f"{name}={entry.partition[name]}" for name in spec.partition_by)


def compact_partition(table: Table, partition: Mapping[str, object]) -> int:
    """Compact one closed partition; return the number of commits, 0 where it was compact.

    Raises:
        ChecksumError: A file's rows are not those it was written with; nothing was changed.
        CommitConflictError: Writers came in between too many times.
    """
    app = writers_app(table.spec, partition)

    def plan(view: View) -> Change | None:
        step = _next_step(table.store, table.spec, view.partition(partition))
        if step is None:
            return None
        _check_rows(table, step)
        told = {"tidemark_maintenance": "compact"}
        return Change(step.write, step.remove, data_change=False, metadata=told)

    commits = 0
    while table.transact(app, plan).changed:
        commits += 1
    return commits


def full_bytes(spec: TableSpec) -> int:
    """Return the bytes up to which files are packed into one; it bounds the memory of a step."""
    return SEALED_BYTES // (8 if spec.bulky_columns else 2)


def _next_step(store: Store, spec: TableSpec, files: Sequence[FileEntry]) -> _Step | None:
    chunks = _chunks(spec, files)
    if chunks:
        return _packed(store, spec, chunks)
    strays = _strays(store, spec, files)
    return _reunited(store, spec, strays) if strays else None


def _chunks(spec: TableSpec, files: Sequence[FileEntry]) -> list[list[FileEntry]]:
    """Return neighbours that fit into one file, series by series; each has two files or more."""
    found: list[list[FileEntry]] = []
    for _, members in sorted(by_series(spec, files).items()):
        chunk: list[FileEntry] = []
        for entry in members:
            if chunk and sum(each.size for each in chunk) + entry.size > full_bytes(spec):
                found.append(chunk)
                chunk = []
            chunk.append(entry)
        found.append(chunk)
    return [chunk for chunk in found if len(chunk) > 1]


def _packed(store: Store, spec: TableSpec, chunks: Sequence[list[FileEntry]]) -> _Step:
    """Rewrite as many chunks as memory is meant for, each as one file and those it sheds."""
    step = _Step([], [])
    for chunk in chunks:
        if sum(entry.size for entry in (*step.remove, *chunk)) > full_bytes(spec) and step.remove:
            break
        rows = sorted_rows(spec, read_files(store, spec, chunk))
        own, shared = settled(spec, rows)
        step.remove.extend(chunk)
        step.write.extend([*own.values(), *shared])
    return step


def _strays(store: Store, spec: TableSpec, files: Sequence[FileEntry]) -> list[FileEntry]:
    """Return a shared file with rows of instruments that have files of their own, and those.

    The shared file comes first; none where there is no such row, or no room to take it up.
    """
    groups = by_series(spec, files)
    for shared in groups.pop(_SHARED, []):
        room = full_bytes(spec) - shared.size
        homes = {
            name: members[-1]
            for name, members in sorted(groups.items())
            if members[-1].size <= room and shared.may_hold(_SERIES, name, name)
        }
        chosen: list[FileEntry] = []
        for name in _instruments(store, spec, shared) if homes else ():
            if name in homes and sum(entry.size for entry in chosen) + homes[name].size <= room:
                chosen.append(homes[name])
        if chosen:
            return [shared, *chosen]
    return []


def _instruments(store: Store, spec: TableSpec, entry: FileEntry) -> list[str]:
    names = scan_files(store, spec, [entry]).select(pl.col(_SERIES).unique().sort())
    return collect_files(store, spec, [entry], names)[_SERIES].to_list()


def _reunited(store: Store, spec: TableSpec, files: Sequence[FileEntry]) -> _Step:
    shared, *homes = files
    rows = read_files(store, spec, [shared])
    names = [str(entry.low[_SERIES]) for entry in homes]
    kept = rows.filter(~pl.col(_SERIES).is_in(names))
    write = [kept] if kept.height else []
    for name, entry in zip(names, homes, strict=True):
        own = rows.filter(pl.col(_SERIES) == pl.lit(name))
        write.append(sorted_rows(spec, pl.concat([read_files(store, spec, [entry]), own])))
    return _Step(list(files), write)


def _check_rows(table: Table, step: _Step) -> None:
    spec, store = table.spec, table.store
    before = combine(read_row_hash(store, spec, entry) for entry in step.remove)
    after = combine(frame_hash(frame, bulky=spec.bulky_columns) for frame in step.write)
    if before != after:
        first = step.remove[0].path
        raise ChecksumError(
            f"The rows of {len(step.remove)} files of {table.uri}, {first} first, are not those "
            "that were written: they are not rewritten",
            remedy="Run `lake snapshot verify` to find the file; restore it from a copy",
            table=spec.name,
            path=f"{spec.path}/{first}",
        )
