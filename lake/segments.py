"""In which order the files of one instrument's bars are read, so that nothing is sorted.

A file that holds one instrument and a bar at every step between its first and its last
*owns* that stretch of time: keys are unique, so no other file has a bar in it. Between the
owners lie gaps; there the other files are read, filtered to the gap. Where the other files of
a gap do not overlap inside it either, the whole is in order as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from contracts.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from lake.parts import FileEntry

_KEY = "instrument_id"


@dataclass(frozen=True, slots=True)
class Segment:
    """Files whose rows in ``[start, end)`` come next; None is unbounded.

    Attributes:
        files: In order of time.
        start: First open_time that counts.
        end: Open_time to stop before.
        whole: All rows of the files count: nothing need be filtered.
        in_order: File after file is in order of time.
    """

    files: tuple[FileEntry, ...]
    start: datetime | None
    end: datetime | None
    whole: bool
    in_order: bool


def first_open(entry: FileEntry) -> datetime:
    """Return the open_time of a file's earliest bar."""
    return _moment(entry.low["open_time"])


def last_open(entry: FileEntry) -> datetime:
    """Return the open_time of a file's latest bar."""
    return _moment(entry.high["open_time"])


def _moment(bound: object) -> datetime:
    if not isinstance(bound, datetime):
        raise InvariantError("a file of bars without statistics of open_time")
    return bound


def is_pure(entry: FileEntry) -> bool:
    """Tell whether a file holds one instrument only."""
    return entry.low[_KEY] is not None and entry.low[_KEY] == entry.high[_KEY]


def plan_segments(
    files: Sequence[FileEntry],
    *,
    step: timedelta,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Segment]:
    """Return the segments, in order of time, that hold the bars of ``[start, end)``.

    Args:
        files: The files that may hold bars of one instrument; keys are unique over them.
        step: Length of a bar.
        start: First open_time asked for; None is unbounded.
        end: Open_time to stop before; None is unbounded.
    """
    owners = sorted((entry for entry in files if _owns(entry, step)), key=first_open)
    held = {entry.path for entry in owners}
    others = [entry for entry in files if entry.path not in held]
    segments: list[Segment] = []
    cursor = start
    for owner in owners:
        low, after = first_open(owner), last_open(owner) + step
        if (end is not None and low >= end) or (cursor is not None and after <= cursor):
            continue
        if cursor is None or cursor < low:
            segments += _gap(others, cursor, low)
        inside = (start is None or low >= start) and (end is None or after <= end)
        segments.append(Segment((owner,), start, end, whole=inside, in_order=True))
        cursor = after
    if end is None or cursor is None or cursor < end:
        segments += _gap(others, cursor, end)
    return _joined(segments)


def _owns(entry: FileEntry, step: timedelta) -> bool:
    return is_pure(entry) and (last_open(entry) - first_open(entry)) // step + 1 == entry.rows


def _gap(
    others: Sequence[FileEntry], start: datetime | None, end: datetime | None
) -> list[Segment]:
    inside = sorted(
        (
            entry
            for entry in others
            if (start is None or last_open(entry) >= start)
            and (end is None or first_open(entry) < end)
        ),
        key=lambda entry: (first_open(entry), last_open(entry), entry.path),
    )
    if not inside:
        return []
    in_order = all(
        _clipped(last_open(a), start, end) < _clipped(first_open(b), start, end)
        for a, b in pairwise(inside)
    )
    return [Segment(tuple(inside), start, end, whole=False, in_order=in_order)]


def _clipped(moment: datetime, start: datetime | None, end: datetime | None) -> datetime:
    moment = moment if start is None else max(moment, start)
    return moment if end is None else min(moment, end)


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Read neighbouring segments that need no filter as one."""
    joined: list[Segment] = []
    for each in segments:
        if joined and joined[-1].whole and each.whole:
            files = joined[-1].files + each.files
            joined[-1] = Segment(files, each.start, each.end, whole=True, in_order=True)
        else:
            joined.append(each)
    return joined
