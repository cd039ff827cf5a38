"""Commands on a lake that was filled once, all in this process."""

import json
import logging
import shutil
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from io import BytesIO, StringIO, TextIOWrapper

import polars as pl
import pytest

import lake
from contracts.tables import BARS, TABLES
from flows.cli import main

BTC = "BTC-USDT-SPOT.BINANCE"
NOW = "2026-03-04T08:05Z"
BACKFILL = (
    *("backfill", "--symbols", "BTC/USDT", "--timeframes", "1m", "1h", "--start", "2026-03-01"),
    *("--replay", "generated", "--replay-now", NOW),
)


def run(*words):
    """Run a command; return exit code, the bytes on stdout, the text on stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out, err = TextIOWrapper(BytesIO(), write_through=True), StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(word) for word in words])
    finally:
        root.handlers[:], root.level = handlers, level
    return code, out.buffer.getvalue(), err.getvalue()


def printed(*words):
    code, out, err = run(*words)
    assert code == 0, err
    return out.decode()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "lake"
    code, out, err = run(*BACKFILL, "--root", root, "--format", "json")
    assert code == 0, err
    return root, json.loads(out), err


@pytest.fixture(scope="module")
def root(filled):
    return filled[0]


@pytest.fixture(scope="module")
def pinned(root):
    return json.loads(printed("snapshot", "create", "--format", "json", "--root", root))


def test_backfill_prints_one_record_per_stream_and_a_summary(filled):
    _, records, err = filled
    assert [row["stream"] for row in records] == [f"{BTC} 1m", f"{BTC} 1h"]
    assert records[0] == {
        "stream": f"{BTC} 1m", "pages": 5, "rows": 4683, "quarantined": 1, "failure": None,
    }  # fmt: skip
    assert "bars: 4,761 new, 0 revised, 0 identical" in err
    assert f"missing: {BTC} 1m [2026-03-02T04:00:00Z, 2026-03-02T06:00:00Z)" in err
    lines = err.splitlines()
    assert lines[0] == "backfill: starting"
    assert lines[1] == "backfill: 2 streams, 6 pages"


def test_a_second_backfill_asks_nothing_and_an_update_brings_what_is_new(filled, tmp_path):
    root = tmp_path / "lake"
    shutil.copytree(filled[0], root)
    code, out, err = run(*BACKFILL, "--root", root, "--format", "csv")
    assert (code, "nothing to ask" in err) == (0, True)
    assert pl.read_csv(out)["pages"].to_list() == [0, 0]
    later = ("--replay", "generated", "--replay-now", "2026-03-04T09:05Z")
    told = json.loads(printed("update", *later, "--root", root, "--format", "json"))
    assert {row["stream"]: row["rows"] for row in told} == {f"{BTC} 1m": 60, f"{BTC} 1h": 1}
    code, _, err = run(*BACKFILL, "--recheck", "--root", root)
    assert code == 3
    assert "[data.clock_regression]" in err


def test_an_update_asks_again_for_the_newest_hours(filled, tmp_path):
    root = tmp_path / "lake"
    shutil.copytree(filled[0], root)
    before = ("--replay", "generated", "--replay-now", "2026-03-04T11:00Z")
    later = ("--replay", "generated", "--replay-now", "2026-03-04T12:30Z")
    printed("update", *before, "--root", root)
    code, _, err = run("update", "--recheck-hours", "6", *later, "--root", root)
    assert code == 0, err
    assert "2 revised" in err  # the minute and its hour


def test_conform_finds_all_of_it_identical_and_keeps_the_replayed_time(filled, tmp_path):
    root = tmp_path / "lake"
    shutil.copytree(filled[0], root)
    code, out, err = run("conform", "--from-bronze", "--root", root, "--format", "json")
    assert code == 0, err
    assert "0 new, 0 revised, 4,761 identical" in err
    assert sum(row["rows"] for row in json.loads(out)) == 4761
    newest = lake.open(root).scan("ops.runs").collect()["known_from"].max()
    assert f"{newest:%Y-%m-%d}" == "2026-03-04"


@pytest.mark.parametrize("command", ["bars", "ledger", "scan", "instruments"])
def test_every_form_of_the_data_reads_back(root, tmp_path, command):
    words, expected = {
        "bars": (("bars", BTC, "--timeframe", "1h"), lake.open(root).bars(BTC, timeframe="1h")),
        "ledger": (("ledger",), lake.open(root).ledger().lazy()),
        "scan": (("scan", "silver.bars"), lake.open(root).scan("silver.bars")),
        "instruments": (("instruments",), lake.open(root).instruments()),
    }[command]
    expected = expected.collect()
    file = tmp_path / "data.parquet"
    assert printed(*words, "--format", "parquet", "--output", file, "--root", root) == ""
    assert pl.read_parquet(file).equals(expected)
    assert pl.read_parquet(BytesIO(run(*words, "--format", "parquet", "--root", root)[1])).equals(
        expected
    )
    rows = json.loads(printed(*words, "--format", "json", "--root", root))
    assert len(rows) == expected.height
    assert list(rows[0]) == expected.columns
    back = pl.read_csv(printed(*words, "--format", "csv", "--root", root).encode())
    assert back.columns == expected.columns
    for name, dtype in expected.schema.items():
        if dtype in (pl.Float64, pl.Int64, pl.Int32):
            assert back[name].to_list() == expected[name].to_list()
            assert [row[name] for row in rows] == expected[name].to_list()
        elif dtype == pl.Datetime("us", "UTC"):
            texts = pl.Series([row[name] for row in rows], dtype=pl.String)
            assert texts.to_list() == [
                None if each is None else each.isoformat().replace("+00:00", "Z")
                for each in expected[name]
            ]
    assert len(printed(*words, "--root", root).splitlines()) == expected.height + 2


def test_a_quarantined_list_and_raw_payloads_survive_json_and_csv(root):
    payloads = json.loads(printed("scan", "bronze.responses", "--format", "json", "--root", root))
    assert all(row["payload"] is None or json.loads(row["payload"]) for row in payloads)
    text = printed("scan", "bronze.responses", "--format", "csv", "--root", root)
    assert pl.read_csv(text.encode()).height == len(payloads)


def test_bars_can_be_cut_limited_and_asked_for_at_a_time(root):
    asked = ("bars", BTC, "--timeframe", "1m", "--root", root, "--format", "json")
    rows = json.loads(printed(*asked, "--start", "2026-03-01T10:00", "--limit", "2"))
    assert [row["open_time"] for row in rows] == ["2026-03-01T10:00:00Z", "2026-03-01T10:01:00Z"]
    (row,) = json.loads(printed(*asked, "--columns", "open_time", "close", "--limit", "1"))
    assert list(row) == ["open_time", "close"]
    history = json.loads(printed(*asked, "--history", "--limit", "1"))
    assert history[0]["known_to"] is None
    assert len(json.loads(printed(*asked, "--known-at", NOW))) == 4683
    by_ten = json.loads(printed(*asked, "--available-at", "2026-03-01T10:00Z"))
    assert 590 < len(by_ten) < 600
    (spans,) = json.loads(
        printed("ledger", BTC, "--timeframe", "1m", "--state", "missing",
                "--root", root, "--format", "json")
    )  # fmt: skip
    assert spans["span_end"] == "2026-03-02T06:00:00Z"


def test_the_schema_is_printed_as_ddl_markdown_and_rows():
    assert printed("schema").count("CREATE TABLE") == len(TABLES)
    page = printed("schema", "silver.bars", "--format", "markdown")
    assert page.startswith("## silver.bars\n")
    assert page.count("\n## ") == 0
    rows = json.loads(printed("schema", "silver.bars", "--format", "json"))
    assert [row["column"] for row in rows] == BARS.schema.names()
    assert [row["column"] for row in rows if row["in_key"]] == list(BARS.key)


def test_a_snapshot_is_created_once_listed_shown_and_read(root, pinned):
    again = json.loads(printed("snapshot", "create", "--format", "json", "--root", root))
    assert again == pinned
    listed = json.loads(printed("snapshot", "list", "--format", "json", "--root", root))
    assert [row["snapshot_id"] for row in listed] == [pinned["snapshot_id"]]
    shown = json.loads(
        printed("snapshot", "show", pinned["snapshot_id"], "--format", "json", "--root", root)
    )
    assert shown["silver.bars"]["rows"] == 4761
    words = ("bars", BTC, "--timeframe", "1h", "--root", root, "--format", "csv")
    at = ("--snapshot", pinned["snapshot_id"], "--verify")
    assert printed(*words, *at) == printed(*words)


@pytest.mark.parametrize("level", [(), ("--quick",), ("--deep",)])
def test_a_changed_byte_fails_the_verification_that_looks_for_it(root, pinned, tmp_path, level):
    copy = tmp_path / "lake"
    shutil.copytree(root, copy)
    words = ("snapshot", "verify", *level, "--root", copy, "--format", "json")
    (row,) = json.loads(printed(*words))
    assert row["verdict"] == "holds"
    victim = max(
        (copy / "silver" / "bars").rglob("*.parquet"), key=lambda file: file.stat().st_size
    )
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(bytes(content))
    code, out, err = run(*words)
    (row,) = json.loads(out)
    if level == ("--quick",):
        assert (code, row["verdict"]) == (0, "holds")
    else:
        assert (code, row["verdict"]) == (5, "storage.checksum")
        assert victim.name in err
        assert err.splitlines()[-1].endswith("[storage.checksum]")
    code, out, _ = run("snapshot", "verify", pinned["snapshot_id"], *level, "--root", copy)
    assert code == (0 if level == ("--quick",) else 5)
    assert pinned["snapshot_id"] in out.decode()


def test_a_lake_is_made_once_with_its_origin(tmp_path):
    words = ("init", "--root", tmp_path / "lake", "--format", "json")
    made = json.loads(printed(*words, "--replay", "generated"))
    assert made["origin"].startswith("replay:")
    assert json.loads(printed(*words, "--replay", "generated")) == made
    code, _, err = run(*words)
    assert code == 2
    assert "[settings.lake_origin]" in err


def test_a_clock_that_runs_and_one_set_over_http_date_a_run(filled):
    from flows.cli.connect import connected
    from flows.cli.options import Replaying
    from flows.replay.process import run_in_process

    with run_in_process(now=NOW, speed=3600) as url:
        with connected(Replaying(url)) as connection:
            first = connection.clock.known()
            assert connection.clock.known() > first
        with connected(Replaying(url, "2026-03-04T22:00Z")) as connection:
            assert connection.clock.known() - first > timedelta(hours=12)
        assert connection.origin == lake.open(filled[0]).info.origin
