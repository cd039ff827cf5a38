"""``Response``: what a venue answered, before anybody has interpreted it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from contracts.time import iso

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from contracts.names import Venue


def canonical_json(value: object) -> str:
    """Return ``value`` as JSON that is equal for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Response:
    """One HTTP answer, verbatim.

    Attributes:
        venue: Who answered.
        endpoint: Method and path, for instance ``GET /api/v3/klines``.
        params: Query parameters; never secrets.
        requested_at: When the request left, known clock.
        received_at: When the body was complete, known clock.
        status: HTTP status.
        content_type: The Content-Type header, if any.
        body: The bytes of the body.
    """

    venue: Venue
    endpoint: str
    params: Mapping[str, str | int]
    requested_at: datetime
    received_at: datetime
    status: int
    content_type: str | None
    body: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the body, hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def response_id(self) -> str:
        """Identity of the response: equal requests answered alike at one moment are one."""
        parts = (self.venue.value, self.endpoint, canonical_json(dict(self.params)))
        text = "\n".join((*parts, iso(self.received_at), self.sha256))
        return hashlib.sha256(text.encode()).hexdigest()
