"""Which files of a partition a write rewrites, so that files stay few.

A partition is kept like a log-structured merge tree. A file of fewer than 64k rows is *open*:
the next append takes its rows along instead of adding a small file. Larger files are
sealed; when eight sealed files of one size class have gathered, the next append merges them.
So a partition holds about a dozen files however many appends it has seen, and each row is
rewritten a bounded number of times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl

    from contracts.spec import TableSpec
    from lake.parts import FileEntry

OPEN_ROWS = 64_000
FAN_IN = 8
CLASS_FACTOR = 8
SEALED_BYTES = 128 << 20


def is_open(spec: TableSpec, entry: FileEntry) -> bool:
    """Tell whether the next append rewrites this file."""
    return entry.rows < OPEN_ROWS and entry.size < spec.tail_bytes


def absorbed(
    spec: TableSpec, files: Iterable[FileEntry], new_rows: int, *, rewritten: Iterable[FileEntry]
) -> list[FileEntry]:
    """Return the files of one partition whose rows an append of ``new_rows`` takes along.

    Args:
        spec: The table.
        files: All files of the partition.
        new_rows: Rows about to be appended.
        rewritten: Files that the same write replaces anyway; they are left out.
    """
    if not new_rows:
        return []
    taken = {entry.path for entry in rewritten}
    candidates = [entry for entry in files if entry.path not in taken]
    if new_rows >= OPEN_ROWS:
        return _full_class(spec, candidates)
    tail = [entry for entry in candidates if is_open(spec, entry)]
    if sum(entry.rows for entry in tail) + new_rows < OPEN_ROWS:
        return tail
    return tail + _full_class(spec, [entry for entry in candidates if entry not in tail])


def _full_class(spec: TableSpec, sealed: list[FileEntry]) -> list[FileEntry]:
    """Return the files of the smallest size class that holds a fan-in of them, if any."""
    ceiling = spec.tail_bytes
    while ceiling < SEALED_BYTES:
        ceiling *= CLASS_FACTOR
        floor = 0 if ceiling == spec.tail_bytes * CLASS_FACTOR else ceiling // CLASS_FACTOR
        members = [entry for entry in sealed if floor <= entry.size < ceiling]
        if len(members) >= FAN_IN:
            return sorted(members, key=lambda entry: entry.path)[:FAN_IN]
    return []


def file_frames(spec: TableSpec, frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut the sorted rows of one partition into frames of at most about 128 MB a file."""
    rows = max(1, frame.height)
    per_row = max(1, int(frame.estimated_size()) // rows)
    limit = max(spec.row_group_rows, SEALED_BYTES // int(per_row))
    yield from frame.iter_slices(limit)
