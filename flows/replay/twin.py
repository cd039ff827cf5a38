"""What the twin of one venue is, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Reply:
    """An answer before faults and transport: status, JSON text, headers.

    ``rows`` holds the JSON rows of a page, so that faults can change them; then ``text`` is
    made of them.
    """

    status: int = 200
    text: str = ""
    rows: list[str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=UTF-8"

    def body(self) -> bytes:
        """Return the bytes to send."""
        if self.rows is not None:
            return f"[{','.join(self.rows)}]".encode()
        return self.text.encode()


@dataclass(frozen=True)
class PageRequest:
    """What of a request the row-changing faults need to know."""

    start_millis: int | None
    end_millis: int | None
    interval_millis: int


class VenueTwin(Protocol):
    """The handlers of one venue."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that the venue answers at."""

    def weight(self, endpoint: str, query: Mapping[str, str]) -> int:
        """Return what a request costs."""

    def answer(self, endpoint: str, query: Mapping[str, str]) -> Reply:
        """Return the answer to a request; ``endpoint`` is the path at the host."""

    def page_request(self, endpoint: str, query: Mapping[str, str]) -> PageRequest:
        """Return the window that a request for a page asks for."""

    def refusal(self, status: int, retry_after_seconds: int) -> Reply:
        """Return the venue's answer to who goes beyond the limits (429) or is banned (418)."""

    def failure(self, status: int) -> Reply:
        """Return what the venue sends with an HTTP status of its own trouble."""


def json_reply(content: Any, status: int = 200) -> Reply:
    """Return a reply with ``content`` as compact JSON."""
    return Reply(status, json.dumps(content, separators=(",", ":")))
