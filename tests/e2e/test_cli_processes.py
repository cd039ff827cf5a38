"""Real ``lake`` processes: killed, interrupted, piped."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

import lake
from contracts.time import SystemClock
from flows.cli import main
from flows.demo_stage import Stage
from flows.replay.generated import GeneratedTape
from flows.replay.process import run_in_process
from lake.ledger import fold
from lake.sources import Tables
from lake.store import Store

FOLLOWED = ("bronze.responses", "ops.quarantine", "silver.bars", "silver.bar_revisions",
            "ops.ledger")  # fmt: skip
BACKFILL = (
    *("backfill", "--symbols", "BTC/USDT", "ETH/USDT", "--timeframes", "1m", "1h"),
    *("--start", "2026-03-01", "--end", "2026-03-05", "--replay", "generated"),
)
LAKE = (sys.executable, "-m", "flows.cli")


@pytest.fixture(autouse=True, scope="module")
def _calm_log():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def state(root):
    """What a lake says, without when it learnt it."""
    lk = lake.open(root)
    dated = ("known_from", "run_id", "evidence")
    tables = {name: lk.scan(name).collect() for name in ("silver.bars", "ops.quarantine")}
    plain = {name: frame.drop(dated, strict=False) for name, frame in tables.items()}
    plain = {name: frame.sort(frame.columns[:5]) for name, frame in plain.items()}
    folded = lk.ledger(start="2026-03-01", end="2026-03-05")
    assert fold(lk.scan("ops.ledger").collect()).height > 0
    plain["ledger"] = folded.drop("known_from", "evidence", "source")
    return plain


def versions(root):
    views = Tables(Store(root), SystemClock()).views(FOLLOWED)
    return {name: view.version for name, view in views.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "lake"
    assert main([*BACKFILL, "--root", str(root)]) == 0
    return root


def test_a_killed_backfill_that_is_resumed_ends_like_one_that_never_stopped(
    whole, tmp_path, capsys
):
    root = tmp_path / "lake"
    stage = Stage(str(root), origin=GeneratedTape().origin)
    stored = stage.killed(*BACKFILL, rows=4_000, environment={"LAKE_BATCH_PAGES": "1"})
    expected = state(whole)
    assert 4_000 <= stored < expected["silver.bars"].height
    assert main([*BACKFILL, "--root", str(root)]) == 0
    resumed = state(root)
    for name, frame in expected.items():
        assert resumed[name].equals(frame), name
    capsys.readouterr()


def test_a_second_run_makes_no_commit(whole, capsys):
    before = versions(whole)
    assert main([*BACKFILL, "--root", str(whole)]) == 0
    assert versions(whole) == before
    assert "nothing to ask" in capsys.readouterr().err


def test_an_interrupted_backfill_says_so_and_can_be_repeated(tmp_path):
    with run_in_process() as url:
        words = (*BACKFILL[:-1], url, "--root", str(tmp_path / "lake"))
        child = subprocess.Popen([*LAKE, *words], stderr=subprocess.PIPE, text=True)
        with child:
            said = child.stderr.readline()
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            rest = child.stderr.read()
    assert said == "backfill: starting\n"
    assert child.returncode == 130
    assert rest.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in rest


def test_data_goes_through_pipes_and_a_closed_one_is_silent(whole):
    words = (*LAKE, "bars", "*", "--timeframe", "1m", "--root", str(whole), "--format")
    reading, writing = os.pipe()
    os.close(reading)
    closed = subprocess.run([*words, "csv"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (closed.returncode, closed.stderr) == (141, b"")
    piped = subprocess.run([*words, "parquet"], capture_output=True, check=True)
    expected = lake.open(whole).bars("*", timeframe="1m").collect()
    assert pl.read_parquet(piped.stdout).equals(expected)
    assert piped.stderr == b""


def test_a_replay_in_the_foreground_announces_itself_and_ends_on_a_signal():
    child = subprocess.Popen(
        [*LAKE, "replay", "generated", "--now", "2026-03-02T00:00Z"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        told = json.loads(child.stdout.readline())
        assert told["known"] == "2026-03-02T00:00:00Z"
        assert told["base_url"].startswith("http://127.0.0.1:")
        child.send_signal(signal.SIGINT)
        child.communicate()
    assert child.returncode == 0
