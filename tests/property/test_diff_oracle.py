"""A diff is what a naive reader of every row of both snapshots would say."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import (
    BTC,
    ETH,
    GENERATED,
    KNOWN,
    MINUTE,
    START,
    Kernel,
    Row,
    audits_of,
    bars_of,
    quarantine_of,
    response_of,
    seal_early,
)

from contracts.tables import BARS, TABLES, State
from lake.diff import _apart, changed_rows, day_column, diff_snapshots
from lake.manifest import NO_MEMBERS
from lake.scan import read_files

DAY = 1_440
CHANGES = {
    "land": lambda kernel, n: kernel.land(response_of(b"[%d]" % n, at=kernel.clock.known())),
    "quarantine": lambda kernel, n: kernel.quarantine(quarantine_of([n])),
    "audit": lambda kernel, n: kernel.audit(audits_of(["x"] * (n + 1))),
    "publish": lambda kernel, n: kernel.publish([Row(n * 400 + i, 1.0 + i) for i in range(3)]),
    "other": lambda kernel, n: kernel.publish([Row(n * 700, 5.0, instrument=ETH)]),
    "revise": lambda kernel, n: kernel.publish([Row(n, 10.0 + n), Row(n + DAY, 20.0 + n)]),
    "present": lambda kernel, n: kernel.observe(0, n + 1),
    "missing": lambda kernel, n: kernel.observe(n, n + 1, State.MISSING),
    "later": lambda kernel, n: kernel.step(minutes=n + 1),
}


def rows_of(kernel, manifest, spec):
    frame = read_files(kernel.store, spec, manifest.view(spec.name).files)
    return {tuple(row[name] for name in spec.key): row for row in frame.iter_rows(named=True)}


def told_naively(kernel, a, b):
    """Read everything and compare key by key."""
    counts, changed = Counter(), {}
    for name, spec in TABLES.items():
        if name in NO_MEMBERS:
            continue
        old, new = rows_of(kernel, a, spec), rows_of(kernel, b, spec)
        for key in old.keys() | new.keys():
            before, after = old.get(key), new.get(key)
            if before == after:
                continue
            kind = "added" if before is None else "removed" if after is None else "revised"
            row = after or before
            by = (name, *(row.get(each) for each in ("venue", "instrument_id", "timeframe")))
            day = row[day_column(spec)]
            counts[(*by, None if day is None else day.date(), kind)] += 1
            changed[(name, key)] = (kind, before, after)
    return counts, changed


def told_by(diff):
    counts = Counter()
    for row in diff.summary.iter_rows(named=True):
        for kind in ("added", "revised", "removed"):
            by = ("table", "venue", "instrument_id", "timeframe", "day")
            if row[kind]:
                counts[(*(row[name] for name in by), kind)] = row[kind]
    return counts


def told_row_by_row(diff):
    changed = {}
    for name, frame in diff.rows.items():
        spec = TABLES[name]
        for row in frame.iter_rows(named=True):
            shown = [each for each in spec.schema.names() if f"old_{each}" in row]
            sides = {
                prefix: {each: row[f"{prefix}_{each}"] for each in shown}
                for prefix in ("old", "new")
            }
            key = tuple(row[each] for each in spec.key)
            changed[name, key] = (row["change"], sides["old"], sides["new"])
    return changed


def assert_agrees(kernel, a, b):
    diff = diff_snapshots(kernel.store, a, b, rows=True)
    counts, changed = told_naively(kernel, a, b)
    assert told_by(diff) == counts
    found = told_row_by_row(diff)
    assert {place: kind for place, (kind, _, _) in found.items()} == {
        place: kind for place, (kind, _, _) in changed.items()
    }
    for place, (_, old, new) in found.items():
        for side, naive in zip((old, new), changed[place][1:], strict=True):
            assert side == {name: (naive or {}).get(name) for name in side}
    without = diff_snapshots(kernel.store, a, b)
    assert without.summary.equals(diff.summary)
    assert without.rows == {}
    return diff


@settings(max_examples=15, phases=GENERATED)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 4)), min_size=1, max_size=8
    ),
    st.integers(0, 7),
    st.booleans(),
)
def test_a_diff_says_what_a_naive_reader_says(tmp_path_factory, told, cut, merged):
    kernel = Kernel(tmp_path_factory.mktemp("diff") / "lake")
    kernel.publish([Row(0, 1.0), Row(DAY, 2.0), Row(0, 3.0, instrument=ETH)])
    taken = [kernel.snapshot()]
    with pytest.MonkeyPatch.context() as patch:
        if merged:
            seal_early(patch, 3, fan_in=2)
            patch.setattr(
                "lake.layout.series_rows", lambda spec: 2 * spec.name.startswith("silver")
            )
        for index, (name, number) in enumerate(told):
            CHANGES[name](kernel, number)
            if index == cut:
                taken.append(kernel.snapshot())
    taken.append(kernel.snapshot())
    assert_agrees(kernel, taken[0], taken[-1])
    assert_agrees(kernel, taken[-1], taken[0])
    assert_agrees(kernel, taken[-2], taken[-1])
    same = assert_agrees(kernel, taken[0], taken[0])
    assert (same.files_read, same.counts) == (0, {"added": 0, "revised": 0, "removed": 0})


def test_pieces_are_bounded_by_files_whose_keys_touch(lake_root, monkeypatch):
    """Instruments that have files of their own are compared one after the other."""
    seal_early(monkeypatch, 1_000, series=2)
    kernel = Kernel(lake_root)
    names = [BTC, ETH, "XRP-USDT-SPOT.BINANCE"]
    kernel.publish([Row(i, 1.0, instrument=name) for name in names for i in range(4)])
    before = kernel.snapshot()
    kernel.step(hours=1)
    kernel.publish([Row(i, 2.0, instrument=name) for name in names for i in range(3)])
    pieces = list(changed_rows(kernel.store, before, kernel.snapshot(), "silver.bars"))
    assert [piece["instrument_id"].unique().to_list() for piece in pieces] == [
        [name] for name in names
    ]
    assert [piece.height for piece in pieces] == [3, 3, 3]


def test_floats_are_compared_by_their_bits():
    rows = bars_of([Row(0, 1.0), Row(1, 1.0)]).with_columns(known_from=pl.lit(KNOWN))
    rows = BARS.check_schema(rows.cast(dict(BARS.schema)))
    nan = rows.with_columns(volume=pl.Series([float("nan"), 0.0]))
    zero = rows.with_columns(volume=pl.Series([float("nan"), -0.0]))
    gone, came = _apart(BARS, nan, zero)
    assert (gone["volume"].to_list(), came["open_time"].to_list()) == ([0.0], [START + MINUTE])
    assert [frame.height for frame in _apart(BARS, nan, nan)] == [0, 0]
