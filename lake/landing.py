"""bronze.responses: keep what a venue answered, verbatim, before anybody interprets it.

An equal body of the same venue and endpoint that was stored within the seven days before is
not stored again: the row then carries the body's SHA-256 and no payload. The look-back is
bounded so that landing costs the same in the tenth year as in the first, and so that a
retention policy never has to keep a body for the sake of a much later row.
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import ChecksumError, InvariantError
from contracts.names import Venue
from contracts.response import Response, canonical_json
from contracts.tables import RESPONSES
from lake.appends import append_missing
from lake.scan import collect_files, scan_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lake.appends import Appended
    from lake.store import Store
    from lake.tables import Table, View

LOOK_BACK = timedelta(days=7)
ELSEWHERE = "elsewhere"


def land(table: Table, responses: Sequence[Response], *, run_id: str) -> Appended:
    """Store responses of one venue in one commit; those that stand already are skipped.

    Args:
        table: bronze.responses.
        responses: What one venue answered.
        run_id: The run that asked.
    """
    if not responses:
        return append_missing(table, RESPONSES.empty(), app="land")
    if len({response.venue for response in responses}) != 1:
        raise InvariantError("responses of several venues in one landing")
    view = table.head()
    stored = _stored_bodies(table.store, view, responses)
    rows = []
    venue = responses[0].venue.value
    first = sum(entry.rows for entry in view.files if entry.partition["venue"] == venue)
    for sequence, response in enumerate(responses, start=first):
        body = (response.endpoint, response.sha256)
        row = _row(response, run_id, with_payload=body not in stored)
        rows.append((*row, sequence))
        stored.add(body)
    frame = pl.DataFrame(rows, schema=RESPONSES.schema, orient="row")
    return append_missing(table, frame, app=f"land/{venue}")


def _stored_bodies(store: Store, view: View, responses: Sequence[Response]) -> set[tuple[str, str]]:
    venue = responses[0].venue.value
    first = f"{min(each.received_at for each in responses) - LOOK_BACK:%Y-%m-%d}"
    files = [
        entry
        for entry in view.files
        if entry.partition["venue"] == venue and entry.partition["date"] >= first
    ]
    wanted = [each.sha256 for each in responses]
    bodies = (
        scan_files(store, RESPONSES, files)
        .filter(pl.col("sha256").is_in(wanted), pl.col("payload_encoding") != ELSEWHERE)
        .select("endpoint", "sha256")
    )
    return set(collect_files(store, RESPONSES, files, bodies).iter_rows())


def _row(response: Response, run_id: str, *, with_payload: bool) -> tuple[object, ...]:
    try:
        payload, encoding = response.body.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(response.body).decode(), "base64"
    return (
        response.response_id,
        response.venue.value,
        f"{response.received_at:%Y-%m-%d}",
        response.endpoint,
        canonical_json(dict(response.params)),
        response.requested_at,
        response.received_at,
        response.status,
        response.content_type,
        response.sha256,
        len(response.body),
        payload if with_payload else None,
        encoding if with_payload else ELSEWHERE,
        run_id,
    )


def landed_index(store: Store, view: View, *, venue: str, endpoint: str) -> pl.DataFrame:
    """Return what stands of an endpoint, without bodies, in the order received.

    Shape: response_id, params, received_at, status, sha256.
    """
    files = [entry for entry in view.files if entry.partition["venue"] == venue]
    index = (
        scan_files(store, RESPONSES, files)
        .filter(pl.col("endpoint") == pl.lit(endpoint))
        .sort("received_at", "sequence")
        .select("response_id", "params", "received_at", "status", "sha256")
    )
    return collect_files(store, RESPONSES, files, index)


def load_responses(
    store: Store, view: View, *, venue: str, response_ids: Sequence[str]
) -> list[Response]:
    """Return stored responses with their bodies, in the order received.

    Raises:
        ChecksumError: A body is not the one that was received.
    """
    files = [entry for entry in view.files if entry.partition["venue"] == venue]
    rows = scan_files(store, RESPONSES, files)
    asked = rows.filter(pl.col("response_id").is_in(list(response_ids)))
    found = collect_files(store, RESPONSES, files, asked.sort("received_at", "sequence"))
    bodies = _bodies(found)
    absent = [text for text in found["sha256"].unique().to_list() if text not in bodies]
    if absent:
        there = pl.col("sha256").is_in(absent), pl.col("payload_encoding") != ELSEWHERE
        bodies |= _bodies(collect_files(store, RESPONSES, files, rows.filter(*there)))
    return [_response(row, bodies) for row in found.iter_rows(named=True)]


def _bodies(rows: pl.DataFrame) -> dict[str, bytes]:
    """Return the bodies that rows hold, by their SHA-256."""
    held = rows.filter(pl.col("payload_encoding") != ELSEWHERE)
    told = held.select("sha256", "payload", "payload_encoding").iter_rows()
    return {
        sha256: base64.b64decode(text) if encoding == "base64" else text.encode()
        for sha256, text, encoding in told
    }


def landed(store: Store, view: View, *, venue: str, endpoint: str) -> list[Response]:
    """Return all stored responses of an endpoint with their bodies, in the order received.

    Raises:
        ChecksumError: A body is not the one that was received.
    """
    index = landed_index(store, view, venue=venue, endpoint=endpoint)
    return load_responses(store, view, venue=venue, response_ids=index["response_id"].to_list())


def _response(row: Mapping[str, object], bodies: Mapping[str, bytes]) -> Response:
    response = Response(
        venue=Venue(str(row["venue"])),
        endpoint=str(row["endpoint"]),
        params=json.loads(str(row["params"])),
        requested_at=row["requested_at"],  # type: ignore[arg-type]
        received_at=row["received_at"],  # type: ignore[arg-type]
        status=int(row["status"]),  # type: ignore[call-overload]
        content_type=row["content_type"],  # type: ignore[arg-type]
        body=bodies.get(str(row["sha256"]), b""),
    )
    if response.sha256 != row["sha256"]:
        raise ChecksumError(
            f"Response {row['response_id']} of {row['venue']} is not what was received",
            remedy="Restore bronze.responses from a copy, or fetch the span again",
            response_id=row["response_id"],
        )
    return response
