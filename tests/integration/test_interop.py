"""Every kind of commit, read alike by Polars, delta-rs, DuckDB and pyarrow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder
from kernel_support import (
    BTC,
    ETH,
    KNOWN,
    Kernel,
    Row,
    bars_of,
    quarantine_of,
    response_of,
    seal_early,
    series,
)

from contracts.tables import BAR_REVISIONS, BARS, LEDGER, QUARANTINE, RESPONSES, State
from lake.parts import partition_of
from lake.tables import Change

ODD = "Ünï-USDT-SPOT.BINANCE"
FINE = datetime(2026, 4, 1, 0, 0, 0, 123_457, tzinfo=UTC)


def created(kernel):
    kernel.tables[BARS.name].create()


def appended(kernel):
    kernel.publish(series(range(50)))
    kernel.publish(series(range(30), instrument=ETH))


def tail_rewritten(kernel):
    appended(kernel)
    kernel.clock.set(FINE)
    kernel.publish(series(range(50, 60)))


def revised(kernel):
    tail_rewritten(kernel)
    kernel.step(hours=1)
    kernel.publish([Row(3, 200.0), Row(4, 201.0, None)])


def of_two_years(kernel):
    revised(kernel)
    kernel.publish_frame(
        bars_of(series(range(20)), start=datetime(2025, 12, 31, 23, 50, tzinfo=UTC))
    )


def checkpointed(kernel):
    of_two_years(kernel)
    for number in range(25):
        kernel.publish([Row(100 + number, 1.0)])


def odd_names(kernel):
    kernel.clock.set(FINE)
    kernel.publish(series(range(5), instrument=ODD))
    kernel.publish(series(range(5), instrument=BTC))


def compacted(kernel):
    of_two_years(kernel)
    table = kernel.tables[BARS.name]

    def merge(view):
        files = view.partition({"venue": "binance", "timeframe": "1m", "year": 2026})
        frame = pl.read_parquet(
            [kernel.root / BARS.path / entry.path for entry in files], hive_partitioning=False
        )
        whole = frame.with_columns(
            venue=pl.lit("binance"), timeframe=pl.lit("1m"), year=pl.lit(2026, pl.Int32)
        ).select(BARS.schema.names())
        half = whole.sort(BARS.sort_by).head(40)
        rest = whole.join(half, on=BARS.key, how="anti").sort(BARS.sort_by)
        return Change([half, rest], files, data_change=False)

    table.transact("publish/binance/1m", merge)


STATES = {
    each.__name__: each
    for each in (created, appended, tail_rewritten, revised, of_two_years, checkpointed, odd_names,
                 compacted)
}  # fmt: skip


def ordered(frame, spec):
    """Return rows as plain values in the order of the key, whoever read them."""
    frame = frame.select(pl.col(name).cast(dtype) for name, dtype in spec.schema.items())
    return frame.sort(spec.key, nulls_last=True).rows()


def reads(path):
    """Return what each reader makes of a table."""
    table = DeltaTable(str(path))
    yield "polars", pl.scan_delta(str(path)).collect()
    yield "delta-rs", pl.DataFrame(QueryBuilder().register("t", table).execute("select * from t"))
    dataset = table.to_pyarrow_dataset()
    if table.file_uris():
        yield "pyarrow", pl.DataFrame(dataset.to_table())
        with duckdb.connect() as connection:
            files = table.file_uris()
            found = connection.sql(
                "from read_parquet($f, hive_partitioning = true)", params={"f": files}
            )
            yield "duckdb", pl.DataFrame(found.to_arrow_table())


@pytest.fixture(params=sorted(STATES))
def kernel(request, lake_root):
    made = Kernel(lake_root)
    STATES[request.param](made)
    return made


def test_every_reader_sees_the_same_bars(kernel):
    expected = ordered(kernel.rows(BARS), BARS)
    seen = {name: ordered(frame, BARS) for name, frame in reads(kernel.root / BARS.path)}
    assert seen == dict.fromkeys(seen, expected)
    assert len(seen) == (4 if expected else 2)


def test_statistics_never_lie(kernel):
    """Each file's own rows lie inside its bounds; the bounds are tight to a millisecond."""
    view = kernel.tables[BARS.name].head()
    for entry in view.files:
        rows = pq.read_table(kernel.root / BARS.path / entry.path)
        frame = pl.DataFrame(rows)
        assert entry.rows == frame.height
        assert entry.size == (kernel.root / BARS.path / entry.path).stat().st_size
        for name in BARS.statistics_columns:
            low, high = frame[name].min(), frame[name].max()
            assert entry.low[name] <= low
            assert high <= entry.high[name]
            if isinstance(low, str):
                assert (entry.low[name], entry.high[name]) == (low, high)
            else:
                assert low - entry.low[name] < timedelta(milliseconds=1)
                assert entry.high[name] - high < timedelta(milliseconds=1)
    actions = pl.DataFrame(
        DeltaTable(str(kernel.root / BARS.path)).get_add_actions(flatten=True)
    ).rows(named=True)
    assert sum(action["num_records"] for action in actions) == kernel.rows(BARS).height
    assert all(action[f"null_count.{name}"] == 0
               for action in actions for name in BARS.statistics_columns)  # fmt: skip


FILTERS = {
    "exact known_from": pl.col("known_from") == pl.lit(FINE),
    "from exact known_from": pl.col("known_from") >= pl.lit(FINE),
    "just after": pl.col("known_from") > pl.lit(FINE),
    "odd name": pl.col("instrument_id") == ODD,
    "one minute": pl.col("open_time") == pl.lit(datetime(2026, 3, 24, 0, 3, tzinfo=UTC)),
    "year": pl.col("year") == 2026,
}


def test_no_filter_skips_a_row_that_it_should_find(kernel):
    rows = kernel.rows(BARS)
    for name, wanted in FILTERS.items():
        found = pl.scan_delta(str(kernel.root / BARS.path)).filter(wanted).collect()
        assert ordered(found, BARS) == ordered(rows.filter(wanted), BARS), name
    query = QueryBuilder().register("t", DeltaTable(str(kernel.root / BARS.path)))
    found = query.execute(f"select * from t where instrument_id = '{ODD}'")
    assert pl.DataFrame(found).height == rows.filter(pl.col("instrument_id") == ODD).height


def test_the_other_tables_are_read_alike_too(lake_root):
    kernel = Kernel(lake_root, known=FINE)
    kernel.land(response_of('["ü"]'.encode(), at=FINE), response_of(b"\xff\xfe", at=KNOWN))
    kernel.quarantine(quarantine_of([1, 2], known=FINE))
    kernel.publish(series(range(5)))
    kernel.observe(0, 5)
    kernel.observe(5, 9, State.OUTAGE, evidence="status page, „Wartung“")
    kernel.publish([Row(1, 7.0)])
    for spec in (RESPONSES, QUARANTINE, LEDGER, BAR_REVISIONS):
        expected = ordered(kernel.rows(spec), spec)
        assert expected
        for name, frame in reads(kernel.root / spec.path):
            assert ordered(frame, spec) == expected, (spec.name, name)


def test_files_are_skipped_by_statistics(lake_root, monkeypatch):
    """A file whose bounds exclude the question is not opened: it may even be gone."""
    seal_early(monkeypatch, 1)
    kernel = Kernel(lake_root)
    for first in range(0, 50, 10):
        kernel.publish(series(range(first, first + 10)))
    view = kernel.tables[BARS.name].head()
    assert len(view.files) == 5
    kept = [entry for entry in view.files if entry.low["open_time"].minute == 20]
    for entry in view.files:
        if entry not in kept:
            (lake_root / BARS.path / entry.path).unlink()
    asked = {"start": "2026-03-24T00:20", "end": "2026-03-24T00:30"}
    assert kernel.lake().bars(BTC, timeframe="1m", **asked).collect().height == 10
    start, end = (pl.lit(datetime(2026, 3, 24, 0, m, tzinfo=UTC)) for m in (20, 30))
    scan = pl.scan_delta(str(lake_root / BARS.path))
    assert scan.filter(pl.col("open_time").is_between(start, end, "left")).collect().height == 10


def test_checkpoints_come_every_ten_commits_and_are_enough(lake_root):
    kernel = Kernel(lake_root)
    for number in range(21):
        kernel.publish([Row(number, 1.0)])
    log = lake_root / BARS.path / "_delta_log"
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 19
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    before = kernel.tables[BARS.name].head()
    for version in range(10):
        kernel.log_of(BARS, version).unlink()
    after = Kernel(lake_root).tables[BARS.name].head()
    assert after == before
    assert [(e.low, e.high) for e in after.files] == [(e.low, e.high) for e in before.files]


def test_old_versions_stay_readable(lake_root):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(5)))
    kernel.publish([Row(2, 9.0)])
    old = kernel.tables[BARS.name].at(1)
    assert sum(entry.rows for entry in old.files) == 5
    found = pl.scan_delta(str(lake_root / BARS.path), version=1).collect()
    assert found.sort("open_time")["close"].to_list() == [row.close for row in series(range(5))]
    assert kernel.tables[BARS.name].at(-1).files == ()


def test_partition_values_that_cannot_be_folders_are_refused():
    from contracts.errors import InvariantError

    frame = bars_of([Row(0, 1.0)]).with_columns(venue=pl.lit("a/b"), known_from=pl.lit(KNOWN))
    with pytest.raises(InvariantError, match="folder"):
        partition_of(BARS, frame)
