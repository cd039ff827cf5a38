"""Faults on demand: armed by code or over HTTP, injected into answers, logged.

=================  =======================================================================
kind               what the client sees
=================  =======================================================================
status             ``status`` with the venue's body (403 and 502 are HTML pages)
html               200 with an HTML page
truncated          200 with the first half of the body
empty              200 without a body
empty_list         200 with ``[]``
reset              the connection is reset
hang               nothing for ``seconds``, then the answer
slow_body          the answer in pieces over ``seconds``
duplicated_rows    a page with each row twice
shifted_page       a page whose rows all lie outside the window that was asked for
missing_rows       a page without its middle rows
revised_bar        a page in which one bar has other values
=================  =======================================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from contracts.errors import RequestError
from contracts.names import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.replay.twin import PageRequest


class FaultKind(StrEnum):
    """What goes wrong."""

    STATUS = "status"
    HTML = "html"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    EMPTY_LIST = "empty_list"
    RESET = "reset"
    HANG = "hang"
    SLOW_BODY = "slow_body"
    DUPLICATED_ROWS = "duplicated_rows"
    SHIFTED_PAGE = "shifted_page"
    MISSING_ROWS = "missing_rows"
    REVISED_BAR = "revised_bar"


STATUSES = (403, 408, 418, 429, 451, 500, 502, 503)
_OF_ROWS = {
    FaultKind.DUPLICATED_ROWS,
    FaultKind.SHIFTED_PAGE,
    FaultKind.MISSING_ROWS,
    FaultKind.REVISED_BAR,
}


@dataclass
class Fault:
    """A fault in wait.

    Args:
        kind: What goes wrong.
        endpoint: The end of the path it waits for (``klines``, ``/api/v3/time``); ``*`` is any.
        symbol: The venue symbol it waits for; None is any.
        times: How often it strikes; None is until it is cleared.
        after: How many matching requests it lets pass first.
        status: The HTTP status of kind ``status``.
        seconds: How long kinds ``hang`` and ``slow_body`` take.
        open_millis: Which bar ``revised_bar`` changes; None is the middle one of the page.
        retry_after_seconds: What 418 and 429 ask for.

    Raises:
        RequestError: The kind or status is not one that can be injected, or a count is below 0.
    """

    kind: FaultKind
    endpoint: str = "*"
    symbol: str | None = None
    times: int | None = 1
    after: int = 0
    status: int = 503
    seconds: float = 1.0
    open_millis: int | None = None
    retry_after_seconds: int = 1
    struck: int = field(default=0, init=False)
    passed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        try:
            self.kind = FaultKind(self.kind)
        except ValueError:
            raise RequestError(
                f"{self.kind!r} is not a kind of fault", remedy=suggest(self.kind, FaultKind)
            ) from None
        if self.kind is FaultKind.STATUS and self.status not in STATUSES:
            raise RequestError(
                f"status {self.status} cannot be injected",
                remedy=f"Take one of {', '.join(map(str, STATUSES))}",
            )
        counts = (self.times or 0, self.after, self.seconds, self.retry_after_seconds)
        if min(counts) < 0:
            raise RequestError("a fault counts below zero", remedy="Give counts from zero on")

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Fault:
        """Build a fault from JSON.

        Raises:
            RequestError: A field is unknown, missing or of the wrong type.
        """
        known = {name: kind for name, kind in cls.__annotations__.items() if name not in _STATE}
        unknown = sorted(set(content) - set(known))
        if unknown or "kind" not in content:
            raise RequestError(
                f"a fault has no {unknown[0]!r}" if unknown else "a fault needs a kind",
                remedy=f"Its fields are {', '.join(known)}",
            )
        try:
            return cls(**content)
        except TypeError as error:
            raise RequestError(
                f"a field of the fault is of the wrong type: {error}",
                remedy="Counts are integers, seconds a number, all else text",
            ) from error

    @property
    def spent(self) -> bool:
        """Whether it has struck as often as it should."""
        return self.times is not None and self.struck >= self.times

    def matches(self, endpoint: str, symbol: str | None) -> bool:
        """Tell whether it waits for such a request."""
        if self.symbol is not None and self.symbol != symbol:
            return False
        wanted = self.endpoint.strip("/")
        return wanted == "*" or f"/{endpoint.strip('/')}".endswith(f"/{wanted}")

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)


_STATE = ("struck", "passed")


@dataclass(frozen=True)
class Injection:
    """One strike of a fault."""

    kind: FaultKind
    endpoint: str
    symbol: str | None
    request_number: int


class FaultBook:
    """The faults in wait, in the order they were armed, and a log of what was injected."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.log: list[Injection] = []

    def arm(self, kind: FaultKind | str, **fields: Any) -> Fault:
        """Arm a fault; the fields are those of ``Fault``."""
        fault = Fault.parse({"kind": kind, **fields})
        self.armed.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm all faults; the log stays."""
        self.armed.clear()

    def strike(
        self, endpoint: str, symbol: str | None, request_number: int, *, has_rows: bool = True
    ) -> Fault | None:
        """Return the fault that this request meets, if any, and log it.

        Every matching fault counts the request towards its ``after``; the first that is due
        strikes. A fault of rows waits for an answer that has rows.
        """
        due: Fault | None = None
        for fault in self.armed:
            if fault.spent or not fault.matches(endpoint, symbol):
                continue
            if fault.kind in _OF_ROWS and not has_rows:
                continue
            if fault.passed < fault.after:
                fault.passed += 1
            elif due is None:
                due = fault
        if due is not None:
            due.struck += 1
            self.log.append(Injection(due.kind, endpoint, symbol, request_number))
        return due


def is_of_rows(kind: FaultKind) -> bool:
    """Tell whether a fault of that kind changes the rows of a page."""
    return kind in _OF_ROWS


def faulty_rows(fault: Fault, rows: list[str], asked: PageRequest) -> list[str]:
    """Return the rows of a page, JSON text each, as the fault leaves them."""
    if fault.kind is FaultKind.DUPLICATED_ROWS:
        return [row for row in rows for _ in range(2)]
    if fault.kind is FaultKind.MISSING_ROWS:
        third = max(1, len(rows) // 3)
        first = (len(rows) - third) // 2
        return rows[:first] + rows[first + third :]
    if fault.kind is FaultKind.SHIFTED_PAGE:
        return _shifted(rows, asked)
    return _revised(rows, fault.open_millis)


def _shifted(rows: list[str], asked: PageRequest) -> list[str]:
    """Move rows before the window where it has a start, else after its end."""
    parsed = [json.loads(row) for row in rows]
    if not parsed:
        return rows
    first, last, step = parsed[0][0], parsed[-1][0], asked.interval_millis
    if asked.start_millis is not None:
        start = asked.start_millis // step * step
        shift = start - last - step
    else:
        end = last if asked.end_millis is None else asked.end_millis // step * step
        shift = end - first + step
    for row in parsed:
        row[0] += shift
        row[6] += shift
    return [json.dumps(row, separators=(",", ":")) for row in parsed]


def _revised(rows: list[str], open_millis: int | None) -> list[str]:
    """Change close and volume of one bar so that it stays a sound bar."""
    changed = list(rows)
    for number, text in enumerate(rows):
        row = json.loads(text)
        if row[0] == open_millis or (open_millis is None and number == len(rows) // 2):
            row[4] = row[3] if row[4] != row[3] else row[2]
            row[5] = format(Decimal(row[5]) + 1, "f")
            changed[number] = json.dumps(row, separators=(",", ":"))
    return changed
