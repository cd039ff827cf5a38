"""``lake snapshot diff``: what one snapshot says differently from another.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import json
from typing import TYPE_CHECKING, Annotated, Any

from flows.cli.options import COMMON, OUTPUT, Common, Many, Output
from flows.cli.pins import found, table_names
from flows.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl

    from lake.diff import Diff

_BY = ("instrument_id", "timeframe", "day")


def diff(
    a: str,
    b: str,
    /,
    *,
    rows: bool = False,
    tables: Annotated[list[str] | None, Many] = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Print rows added, revised and removed from snapshot A to B, by instrument and day.

    Try: ``lake snapshot diff paper 2026-03-24-3f9ac2d1 --rows --tables silver.bars``

    Args:
        a: The old one: an id, the beginning of one, or a label.
        b: The new one.
        rows: Print each row that differs, with its old and new values.
        tables: Compare only these tables, such as silver.bars; all when left out.
    """
    from flows.cli.output import emit
    from lake.diff import diff_snapshots
    from lake.labels import resolve_snapshot
    from lake.locked import refuse_when_locked

    refuse_when_locked(f"a comparison of {a} with {b}")
    store, old = found(common, a)
    new = resolve_snapshot(store, b)
    told = diff_snapshots(store, old, new, rows=rows, tables=table_names(tables))
    emit(_row_by_row(told) if rows else told.summary, output)
    counts = ", ".join(f"{count:,} {name}" for name, count in told.counts.items())
    say(f"{counts}; {told.files_read} files, {told.bytes_read:,} bytes read")
    if told.left_out:
        say(f"not compared, for one of the two does not pin it: {', '.join(told.left_out)}")
    return 0


def _row_by_row(told: "Diff") -> "pl.DataFrame":
    """Return the rows of all tables in one frame: the key and what differs, as JSON."""
    import polars as pl

    schema = {
        **{name: pl.String() for name in ("table", "change", "instrument_id", "timeframe")},
        "day": pl.Date(),
        **{name: pl.String() for name in ("key", "old", "new")},
    }
    lines = [line for name, frame in told.rows.items() for line in _lines(name, frame)]
    return pl.DataFrame(lines, schema=schema)


def _lines(name: str, frame: "pl.DataFrame") -> "Iterator[dict[str, Any]]":
    from contracts.tables import table

    spec = table(name)
    others = [each for each in spec.schema.names() if f"old_{each}" in frame.columns]
    for row in frame.iter_rows(named=True):
        old = {each: row[f"old_{each}"] for each in others}
        new = {each: row[f"new_{each}"] for each in others}
        if row["change"] == "revised":
            differ = [each for each in others if old[each] != new[each]]
            old, new = ({each: side[each] for each in differ} for side in (old, new))
        yield {
            "table": name,
            "change": row["change"],
            **{each: row.get(each) for each in _BY},
            "key": _json({each: row[each] for each in spec.key}),
            "old": None if row["change"] == "added" else _json(old),
            "new": None if row["change"] == "removed" else _json(new),
        }


def _json(values: "Mapping[str, Any]") -> str:
    return json.dumps(values, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    from datetime import datetime

    from contracts.time import iso

    return iso(value) if isinstance(value, datetime) else str(value)
