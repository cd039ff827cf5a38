"""Data on stdout, or in a file: as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import RequestError, StoreUnavailableError
from contracts.spec import Time
from flows.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.cli.options import Output

# A table on a terminal shows so many rows at its head and at its end.
_SHOWN = 30
_ISO = "%Y-%m-%dT%H:%M:%S%.fZ"


def emit(frame: pl.DataFrame, output: Output, *, brief: Sequence[str] = ()) -> None:
    """Write rows where the user wants them.

    Args:
        frame: The rows.
        output: Form and destination.
        brief: Columns that a table shows; all when empty. The other forms carry every one.
    """
    if output.format == "parquet":
        _write(_parquet(frame), output, binary=True)
    elif output.format == "csv":
        _write(_flat(frame).write_csv().encode(), output)
    elif output.format == "json":
        _write(_json_rows(frame), output)
    else:
        cut = output.output is None and sys.stdout.isatty()
        shown = frame.select(brief) if brief else frame
        _write(table_text(shown, head_and_tail=_SHOWN if cut else None).encode(), output)
        if cut and frame.height > 2 * _SHOWN:
            say(f"{2 * _SHOWN} of {frame.height:,} rows; --format csv prints all")


def emit_record(record: Mapping[str, Any], output: Output) -> None:
    """Write one thing: an object in JSON, one row in CSV and Parquet, lines in a table."""
    if output.format == "json":
        _write((json.dumps(record, indent=2, default=str) + "\n").encode(), output)
    elif output.format == "table":
        width = max(map(len, record), default=0)
        lines = (f"{name:<{width}}  {_told(value)}\n" for name, value in record.items())
        _write("".join(lines).encode(), output)
    else:
        row = {name: _told(v) if isinstance(v, dict | list) else v for name, v in record.items()}
        emit(pl.DataFrame([row]), output)


def emit_text(text: str, output: str | None) -> None:
    """Write a page of text."""
    content = text.encode()
    if output is None:
        sys.stdout.write(text)
    else:
        _to_file(content, output)


def table_text(frame: pl.DataFrame, *, head_and_tail: int | None = None) -> str:
    """Return rows as aligned columns; numbers stand at the right.

    Args:
        frame: The rows.
        head_and_tail: Leave out the middle when there are more than twice as many rows.
    """
    rows = frame
    cut = head_and_tail is not None and frame.height > 2 * head_and_tail
    if head_and_tail is not None and cut:
        rows = pl.concat([frame.head(head_and_tail), frame.tail(head_and_tail)])
    texts = [[name, *map(_cell, rows[name].to_list())] for name in rows.columns]
    widths = [max(map(len, column)) for column in texts]
    right = [dtype.is_numeric() for dtype in rows.dtypes]
    lines = []
    for cells in zip(*texts, strict=True):
        placed = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, right, strict=True)
        )
        lines.append("  ".join(placed).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    if head_and_tail is not None and cut:
        lines.insert(2 + head_and_tail, f"... {frame.height - 2 * head_and_tail:,} more rows ...")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "astimezone"):
        return str(value.strftime("%Y-%m-%d %H:%M:%S")) + (
            f".{value.microsecond:06d}" if value.microsecond else ""
        )
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value).replace("\n", " ")
    return text if len(text) <= 80 else text[:79] + "…"


def _told(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)
    return "" if value is None else str(value)


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with times as ISO 8601 in UTC."""
    times = [name for name, dtype in frame.schema.items() if dtype == Time]
    return frame.with_columns(pl.col(name).dt.to_string(_ISO) for name in times)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return _texts(frame).with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join(";") for name in lists
    )


def _json_rows(frame: pl.DataFrame) -> bytes:
    if frame.is_empty():
        return b"[]\n"
    return _texts(frame).write_json().encode() + b"\n"


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _write(content: bytes, output: Output, *, binary: bool = False) -> None:
    if output.output is not None:
        _to_file(content, output.output)
        return
    if binary and sys.stdout.isatty():
        raise RequestError(
            "Parquet is not for a terminal",
            remedy="Name a file with --output, or pipe stdout elsewhere",
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _to_file(content: bytes, name: str) -> None:
    try:
        Path(name).expanduser().write_bytes(content)
    except OSError as error:
        raise StoreUnavailableError(
            f"{name} cannot be written: {error.strerror}", remedy="Choose another --output"
        ) from error
