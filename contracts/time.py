"""Time: UTC microseconds, half-open spans, and the two clocks.

Every time in Tidemark is an aware ``datetime`` in UTC with microseconds. A span is
half-open, ``[start, end)``. Nobody reads the wall clock but ``SystemClock``, which only
entry points build: everything else is handed a ``Clock``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from contracts.errors import InvalidSpanError, InvalidTimeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_OFFSET = timedelta(0)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TOO_FINE = re.compile(r"\.\d{7,}")


def parse_time(value: str | date | datetime, *, name: str = "time") -> datetime:
    """Return ``value`` as an aware UTC ``datetime`` with microseconds.

    Args:
        value: An ISO 8601 text (without an offset it is UTC), a date (its first instant,
            UTC) or an aware ``datetime``.
        name: What the value is for; the error names it.

    Raises:
        InvalidTimeError: The text is no time, is finer than a microsecond, or the
            ``datetime`` is naive.

    Example:
        >>> parse_time("2026-03-24")
        datetime.datetime(2026, 3, 24, 0, 0, tzinfo=datetime.timezone.utc)
        >>> parse_time("2026-03-24T10:00+02:00").isoformat()
        '2026-03-24T08:00:00+00:00'
    """
    if isinstance(value, datetime):
        return _aware(value, name)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, str):
        msg = f"{name} is a {type(value).__name__}, not a time"
        raise InvalidTimeError(msg, remedy="Pass an ISO 8601 text or an aware datetime", name=name)
    text = value.strip()
    if _TOO_FINE.search(text):
        msg = f"{name} {value!r} is finer than a microsecond"
        raise InvalidTimeError(msg, remedy="Give at most six decimals of a second", name=name)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{name} {value!r} is not a time"
        raise InvalidTimeError(
            msg, remedy="Write it as 2026-03-24 or 2026-03-24T10:00Z (UTC)", name=name
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else _in_utc(parsed, name)


def _aware(value: datetime, name: str) -> datetime:
    if value.tzinfo is None or value.utcoffset() is None:
        msg = f"{name} {value.isoformat()} is a naive datetime"
        raise InvalidTimeError(
            msg, remedy="Give it a time zone, for instance tzinfo=datetime.UTC", name=name
        )
    return _in_utc(value, name)


def _in_utc(value: datetime, name: str) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        msg = f"{name} {value.isoformat()} lies outside the calendar in UTC"
        raise InvalidTimeError(msg, remedy="Give a time of this era", name=name) from None


def iso(value: datetime) -> str:
    """Return ``value`` as ISO 8601 in UTC with ``Z``, as short as it is exact.

    Example:
        >>> iso(parse_time("2026-03-24T10:00"))
        '2026-03-24T10:00:00Z'
    """
    text = (
        value.isoformat() if value.utcoffset() == _NO_OFFSET else value.astimezone(UTC).isoformat()
    )
    return text.removesuffix("+00:00") + "Z"


def to_micros(value: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return (value - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the UTC time that many microseconds after 1970-01-01."""
    return EPOCH + timedelta(microseconds=micros)


def to_millis(value: datetime) -> int:
    """Return whole milliseconds since 1970-01-01 UTC, rounded down."""
    return (value - EPOCH) // timedelta(milliseconds=1)


def from_millis(millis: int) -> datetime:
    """Return the UTC time that many milliseconds after 1970-01-01."""
    return EPOCH + timedelta(milliseconds=millis)


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """A half-open, non-empty interval of UTC time: ``start <= t < end``.

    Raises:
        InvalidSpanError: Start is not before end.
        InvalidTimeError: A bound is naive.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _aware(self.start, "start"))
        object.__setattr__(self, "end", _aware(self.end, "end"))
        if self.start >= self.end:
            msg = f"start {iso(self.start)} is not before end {iso(self.end)}"
            raise InvalidSpanError(msg, remedy="A span is half-open: give an end after the start")

    @classmethod
    def parse(cls, start: str | date | datetime, end: str | date | datetime) -> Span:
        """Build a span from two times in any form that ``parse_time`` takes."""
        return cls(parse_time(start, name="start"), parse_time(end, name="end"))

    @property
    def duration(self) -> timedelta:
        """Length of the span."""
        return self.end - self.start

    def contains(self, moment: datetime) -> bool:
        """Tell whether ``moment`` lies inside."""
        return self.start <= moment < self.end

    def intersection(self, other: Span) -> Span | None:
        """Return the part shared with ``other``, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Span(start, end) if start < end else None

    def split(self, step: timedelta) -> Iterator[Span]:
        """Cut into consecutive spans of at most ``step``, from the start on."""
        at = self.start
        while at < self.end:
            after = min(at + step, self.end)
            yield Span(at, after)
            at = after

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"


class Clock(Protocol):
    """The two clocks that everything is handed."""

    def known(self) -> datetime:
        """Return the time that dates knowledge and decides what is closed; a replay sets it."""

    def storage(self) -> datetime:
        """Return the real time: file times, tombstones, leases, vacuum grace."""


class SystemClock:
    """Both clocks are the machine's; the only reader of the wall clock in the house."""

    def known(self) -> datetime:
        """Return the machine's time."""
        return datetime.now(UTC)  # noqa: TID251 - the one place that may

    def storage(self) -> datetime:
        """Return the machine's time."""
        return datetime.now(UTC)  # noqa: TID251 - the one place that may


class SteppedClock:
    """``known`` stands still until it is set or stepped; ``storage`` stays real.

    Example:
        >>> clock = SteppedClock(parse_time("2026-04-01"))
        >>> clock.step(timedelta(hours=1))
        >>> iso(clock.known())
        '2026-04-01T01:00:00Z'
    """

    def __init__(self, known: datetime) -> None:
        self._known = _aware(known, "clock")
        self._storage = SystemClock()

    def known(self) -> datetime:
        """Return the time last set."""
        return self._known

    def storage(self) -> datetime:
        """Return the machine's time."""
        return self._storage.storage()

    def set(self, known: datetime) -> None:
        """Set the known time, forwards or backwards."""
        self._known = _aware(known, "clock")

    def step(self, duration: timedelta) -> None:
        """Move the known time by ``duration``."""
        self._known += duration
