"""What an inventory renders is the canonical JSON of what its entries say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvariantError
from contracts.response import canonical_json
from contracts.tables import BARS
from contracts.time import iso
from lake.inventory import Inventory

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
MOMENTS = st.datetimes(
    datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip
NAMES = st.tuples(st.sampled_from(["a" * 64, "0b" * 32]), st.sampled_from([None, "c" * 32]))


def value(dtype):
    if dtype == pl.Datetime:
        return st.one_of(st.none(), MOMENTS, MOMENTS.map(lambda at: at.replace(microsecond=0)))
    return st.one_of(st.none(), TEXTS if dtype == pl.String else st.integers(-(2**31), 2**31 - 1))


@st.composite
def actions(draw):
    """Add actions as delta-rs flattens them, with values that need escaping."""
    count = draw(st.integers(0, 4))
    told = {}
    for name in BARS.partition_by:
        told[f"partition.{name}"] = BARS.schema[name]
    for name in BARS.statistics_columns:
        told |= {f"min.{name}": BARS.schema[name], f"max.{name}": BARS.schema[name]}
    columns = [
        pl.Series(name, [draw(value(dtype)) for _ in range(count)], dtype=dtype)
        for name, dtype in told.items()
    ]
    names = [draw(NAMES) for _ in range(count)]
    paths = [
        f"{number}/part-{'-'.join(part for part in name if part)}.parquet"
        for number, name in enumerate(names)
    ]
    sizes = [draw(st.integers(0, 2**40)) for _ in range(count)]
    fixed = pl.DataFrame(
        {"path": paths, "size_bytes": sizes, "num_records": sizes},
        schema={"path": pl.String, "size_bytes": pl.Int64, "num_records": pl.Int64},
    )
    return fixed.with_columns(columns)


@given(actions())
def test_files_are_rendered_as_the_encoder_renders_their_entries(frame):
    held = Inventory.of(BARS, 3, frame)
    hashes = [told or "d" * 32 for told in held.row_hashes]

    def shown(bounds):
        return {
            name: iso(told) if isinstance(told, datetime) else told for name, told in bounds.items()
        }

    expected = [
        canonical_json(
            {
                "path": entry.path,
                "size": entry.size,
                "sha256": entry.sha256,
                "rows": entry.rows,
                "partition": dict(entry.partition),
                "low": shown(entry.low),
                "high": shown(entry.high),
                "row_hash": row_hash,
            }
        )
        for entry, row_hash in zip(held.entries(), hashes, strict=True)
    ]
    assert held.to_json(hashes) == expected
    assert [json.loads(text)["path"] for text in expected] == sorted(frame["path"])
    bare = {entry.path for entry in held.without_row_hash()}
    assert bare == {entry.path for entry in held.entries() if entry.row_hash is None}


def test_a_bound_that_no_manifest_can_state_exactly_is_refused():
    frame = pl.DataFrame({"path": ["part-a.parquet"], "size_bytes": [1], "num_records": [1]})
    name = BARS.statistics_columns[0]
    held = Inventory.of(BARS, 0, frame.with_columns(pl.lit(0.1).alias(f"min.{name}")))
    with pytest.raises(InvariantError, match=name):
        held.to_json(["d" * 32])
