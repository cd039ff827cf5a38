"""Which files of a partition a write rewrites, so that files stay few and reads stay narrow.

A partition is kept like a log-structured merge tree. Small files (below
``TableSpec.tail_rows``, 64k for bars) form its *tail*: the next append takes their rows along
instead of adding another file. A tail that has grown large is sealed; when eight sealed files of
one size class have gathered, the next append merges them. So a partition holds a bounded
number of files however many appends it has seen, and each row is rewritten a bounded number
of times.

An instrument that has enough rows in one write (``TableSpec.series_rows``, 4,000 for bars)
leaves the others and gets a file of its own, which grows by its next such write until it is
sealed: a reader of one instrument does not pay for the others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from contracts.spec import TableSpec
    from lake.parts import FileEntry

FAN_IN = 8
SEALED_BYTES = 128 << 20
_SERIES = "instrument_id"


def open_rows(spec: TableSpec) -> int:
    """Return the number of rows from which on a file is sealed."""
    return spec.tail_rows


def series_rows(spec: TableSpec) -> int:
    """Return the number of rows from which on an instrument gets a file of its own."""
    return spec.series_rows


def tail(spec: TableSpec, files: Iterable[FileEntry]) -> list[FileEntry]:
    """Return the files of a partition that the next small append rewrites."""
    return [entry for entry in files if _is_small(spec, entry) and not _is_series(spec, entry)]


def growing(spec: TableSpec, files: Iterable[FileEntry], name: str) -> list[FileEntry]:
    """Return the files of one instrument that its next rows are added to."""
    return [
        entry
        for entry in files
        if _is_small(spec, entry) and _is_series(spec, entry) and entry.low[_SERIES] == name
    ]


def by_series(spec: TableSpec, files: Iterable[FileEntry]) -> dict[str, list[FileEntry]]:
    """Return files by the instrument they belong to, oldest first; shared ones under ``""``."""
    groups: dict[str, list[FileEntry]] = {}
    for entry in sorted(files, key=lambda entry: _age(spec, entry)):
        name = str(entry.low[_SERIES]) if _is_series(spec, entry) else ""
        groups.setdefault(name, []).append(entry)
    return groups


def mergeable(spec: TableSpec, files: Iterable[FileEntry]) -> list[FileEntry]:
    """Return the files of the smallest size class that holds a fan-in of them, if any.

    Files of one instrument are merged with one another, the oldest first, so that they stay
    of one instrument and a reader can tell their order.
    """
    classes: dict[tuple[int, str], list[FileEntry]] = {}
    sealed = [entry for entry in files if not _is_small(spec, entry)]
    for name, members in by_series(spec, sealed).items():
        for entry in members:
            classes.setdefault((size_class(spec, entry), name), []).append(entry)
    for _, members in sorted(classes.items()):
        chosen = members[:FAN_IN]
        if len(chosen) == FAN_IN and sum(entry.size for entry in chosen) <= SEALED_BYTES:
            return chosen
    return []


def size_class(spec: TableSpec, entry: FileEntry) -> int:
    """Return how many times a file is ``FAN_IN`` times as large as one just sealed."""
    times = max(entry.rows / open_rows(spec), entry.size / spec.tail_bytes)
    return max(0, math.floor(math.log(times, FAN_IN)))


def settled(
    spec: TableSpec, rows: pl.DataFrame
) -> tuple[dict[str, pl.DataFrame], Sequence[pl.DataFrame]]:
    """Split sorted rows of one partition: who gets files of their own, and the rest.

    Returns:
        The rows of each instrument that has enough of them, and a frame of all others, in the
        order given; no frame where there are none.
    """
    least = series_rows(spec)
    if not least or rows.height < least:
        return {}, [rows] if rows.height else []
    counts = rows.lazy().group_by(_SERIES).len().filter(pl.col("len") >= least).collect()
    names = sorted(counts[_SERIES])
    if len(names) == 1 and counts["len"][0] == rows.height:
        return {names[0]: rows}, []
    own = {name: rows.filter(pl.col(_SERIES) == pl.lit(name)) for name in names}
    rest = rows.filter(~pl.col(_SERIES).is_in(names)) if names else rows
    return own, [rest] if rest.height else []


def is_sealed(spec: TableSpec, rows: pl.DataFrame) -> bool:
    """Tell whether the file of these rows will be sealed."""
    return rows.height >= open_rows(spec)


def file_frames(spec: TableSpec, frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut the sorted rows of one partition into frames of at most about 128 MB a file."""
    rows = max(1, frame.height)
    per_row = max(1, int(frame.estimated_size()) // rows)
    limit = max(spec.row_group_rows, SEALED_BYTES // int(per_row))
    yield from frame.iter_slices(limit)


def _is_small(spec: TableSpec, entry: FileEntry) -> bool:
    return entry.rows < open_rows(spec) and entry.size < spec.tail_bytes


def _is_series(spec: TableSpec, entry: FileEntry) -> bool:
    """Tell whether a file belongs to one instrument, as opposed to the tail."""
    least = series_rows(spec)
    name = entry.low.get(_SERIES)
    return bool(least) and entry.rows >= least and name is not None and name == entry.high[_SERIES]


def _age(spec: TableSpec, entry: FileEntry) -> tuple[str, str]:
    """Order files by the time of their first row."""
    by = spec.sort_by[1] if spec.sort_by[0] == _SERIES else spec.sort_by[0]
    return f"{entry.low.get(by)}", entry.path
