"""Reading JSON bodies: every surprise is a ``PayloadError`` that says what was met where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contracts.response import Response

TEXT = frozenset((str,))
TEXT_OR_NULL: frozenset[type] = frozenset((str, type(None)))
WHOLE = frozenset((int,))
WHOLE_OR_NULL: frozenset[type] = frozenset((int, type(None)))
SCALAR: frozenset[type] = frozenset((str, int, float, type(None)))

_INT64_MAX = 2**63 - 1
_REMEDY = "The raw response is kept; parse it again from bronze once the parser knows this shape"


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in a row: its name and the JSON types that it may have."""

    name: str
    types: frozenset[type]


def unknown_shape(response: Response, what: str) -> PayloadError:
    """Return the error that says ``what`` was met in ``response``."""
    return PayloadError(
        f"{response.venue} answered {response.endpoint} with an unknown shape: {what}",
        remedy=_REMEDY,
        venue=response.venue.value,
        endpoint=response.endpoint,
        symbol=response.params.get("symbol"),
        response_id=response.response_id,
    )


def shown(value: object) -> str:
    """Return ``value`` as a short piece of an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def decode_json(response: Response) -> Any:
    """Return the decoded body.

    Raises:
        PayloadError: The body is empty, HTML, cut short or otherwise no JSON.
    """
    body = response.body
    head = body[:64].lstrip()
    if not head and not body.strip():
        raise unknown_shape(response, "an empty body")
    if head.startswith(b"<"):
        raise unknown_shape(
            response, f"HTML instead of JSON, {shown(head.decode('utf-8', 'replace'))}"
        )
    try:
        return json.loads(body)
    except UnicodeDecodeError as error:
        raise unknown_shape(response, f"bytes that are no text at {error.start}") from None
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        end = " (the body ends there: it was cut short)" if at_end else ""
        what = f"no JSON at character {error.pos} of {len(error.doc)}{end}"
        raise unknown_shape(response, what) from None
    except (ValueError, RecursionError) as error:
        raise unknown_shape(response, f"JSON that cannot be read, {shown(str(error))}") from None


def columns_of(response: Response, rows: Any, layout: Sequence[Cell]) -> list[tuple[Any, ...]]:
    """Return the columns of a page: a list of lists, each as wide as ``layout``.

    Raises:
        PayloadError: Not a list of such lists, or a cell of another JSON type.
    """
    if type(rows) is not list:
        raise unknown_shape(response, f"a JSON {_kind(rows)} where a list of rows belongs")
    if not rows:
        return [()] * len(layout)
    if set(map(type, rows)) != {list}:
        at = next(at for at, row in enumerate(rows) if type(row) is not list)
        raise unknown_shape(response, f"row {at} is a JSON {_kind(rows[at])}, not a list")
    if set(map(len, rows)) != {len(layout)}:
        at = next(at for at, row in enumerate(rows) if len(row) != len(layout))
        what = f"row {at} has {len(rows[at])} elements, not {len(layout)}"
        raise unknown_shape(response, what)
    columns = list(zip(*rows, strict=True))
    for cell, column in zip(layout, columns, strict=True):
        if not cell.types.issuperset(map(type, column)):
            at = next(at for at, value in enumerate(column) if type(value) not in cell.types)
            what = f"row {at}, {cell.name}: {shown(column[at])} is a JSON {_kind(column[at])}"
            raise unknown_shape(response, what)
    return columns


def check_int64(response: Response, name: str, column: Iterable[int | None]) -> None:
    """Raise ``PayloadError`` when a whole number is too large to store."""
    for at, value in enumerate(column):
        if value is not None and not -_INT64_MAX <= value <= _INT64_MAX:
            what = f"row {at}, {name}: {shown(value)} is too large for a 64-bit number"
            raise unknown_shape(response, what)


def floats(response: Response, name: str, texts: Sequence[str | None]) -> pl.Series:
    """Return the numbers written in a column of texts, correctly rounded; nulls stay null.

    Raises:
        PayloadError: A text is no finite number.
    """
    raw = pl.Series(name, texts, dtype=pl.String)
    numbers = raw.cast(pl.Float64, strict=False)
    if numbers.null_count() != raw.null_count() or not numbers.is_finite().all():
        wrong = (numbers.is_null() & raw.is_not_null()) | ~numbers.is_finite().fill_null(value=True)
        at = wrong.arg_true()[0]
        raise unknown_shape(response, f"row {at}, {name}: {shown(texts[at])} is no finite number")
    return numbers


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "whole number"}
    return names.get(type(value), "null" if value is None else "number")
