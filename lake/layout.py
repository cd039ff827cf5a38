"""Which files of a partition a write rewrites, so that files stay few.

A partition is kept like a log-structured merge tree. A small file (``TableSpec.tail_rows``,
64k for bars) is *open*: the next append takes its rows along instead of adding another. Larger
files are sealed; when eight sealed files of one size class have gathered, the next append
merges them. So a partition holds about a dozen files however many appends it has seen, and
each row is rewritten a bounded number of times.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl

    from contracts.spec import TableSpec
    from lake.parts import FileEntry

FAN_IN = 8
SEALED_BYTES = 128 << 20


def open_rows(spec: TableSpec) -> int:
    """Return the number of rows from which on a file is sealed."""
    return spec.tail_rows


def is_open(spec: TableSpec, entry: FileEntry) -> bool:
    """Tell whether the next append rewrites this file."""
    return entry.rows < open_rows(spec) and entry.size < spec.tail_bytes


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
    sealed = [entry for entry in candidates if not is_open(spec, entry)]
    if new_rows >= open_rows(spec):
        return _full_class(spec, sealed)
    tail = [entry for entry in candidates if is_open(spec, entry)]
    if sum(entry.rows for entry in tail) + new_rows < open_rows(spec):
        return tail
    return tail + _full_class(spec, sealed)


def size_class(spec: TableSpec, entry: FileEntry) -> int:
    """Return how many times a file is ``FAN_IN`` times as large as one just sealed."""
    times = max(entry.rows / open_rows(spec), entry.size / spec.tail_bytes)
    return max(0, math.floor(math.log(times, FAN_IN)))


def _full_class(spec: TableSpec, sealed: list[FileEntry]) -> list[FileEntry]:
    """Return the files of the smallest size class that holds a fan-in of them, if any.

    Files are merged with files of the same leading keys: those of one instrument with one
    another, so that they stay of one instrument and a reader can tell their order.
    """
    leading = spec.sort_by[0]
    classes: dict[tuple[int, str], list[FileEntry]] = {}
    for entry in sorted(sealed, key=lambda entry: entry.path):
        of = f"{entry.low.get(leading)} {entry.high.get(leading)}" if _by_name(spec) else ""
        classes.setdefault((size_class(spec, entry), of), []).append(entry)
    for _, members in sorted(classes.items()):
        if len(members) >= FAN_IN:
            chosen = members[:FAN_IN]
            if sum(entry.size for entry in chosen) <= SEALED_BYTES:
                return chosen
    return []


def _by_name(spec: TableSpec) -> bool:
    """Tell whether files are told apart by whose rows they hold, and not by time alone."""
    return spec.sort_by[0] == "instrument_id"


def file_frames(spec: TableSpec, frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut the sorted rows of one partition into frames of at most about 128 MB a file."""
    rows = max(1, frame.height)
    per_row = max(1, int(frame.estimated_size()) // rows)
    limit = max(spec.row_group_rows, SEALED_BYTES // int(per_row))
    yield from frame.iter_slices(limit)
