"""Asked wrongly: one line that says what to do, and the exit code of its class."""

import logging
import os
import subprocess
import sys

import polars as pl
import pytest

import flows.cli.read
from flows.cli import main
from flows.cli.progress import Bars, Lines
from flows.replay.generated import GeneratedTape
from lake.root import init_lake
from lake.store import Store

SOUND = ("--symbols", "BTC/USDT", "--timeframes", "1h", "--start", "2026-03-01")
BACKFILL = ("backfill", *SOUND, "--end", "2026-03-02", "--replay", "generated")


@pytest.fixture(autouse=True)
def _calm_log():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def replayed(lake_root):
    init_lake(Store(lake_root), origin=GeneratedTape().origin)
    return lake_root


def complaint(capsys, *words):
    """Run a command that is to fail; return its exit code and the one line it says."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line == said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    return code, line


BEFORE_ANYTHING_RUNS = {
    "symbol of no form": (("--symbols", "BTCUSDT"), "request.invalid_name", "BTC/USDT"),
    "venue": (("--venue", "binanse"), "request.unknown_venue", "Did you mean binance"),
    "venue without adapter": (("--venue", "okx"), "venue.unsupported", "binance"),
    "timeframe": (("--timeframes", "1hr"), "request.unknown_timeframe", "Did you mean 1h"),
    "start after end": (("--end", "2026-02-01"), "request.invalid_span", "half-open"),
    "no time": (("--start", "yesterday"), "request.invalid_time", "2026-03-24T10:00Z"),
    "too fine": (("--start", "2026-03-01T00:00:00.1234567"), "request.invalid_time", "six"),
    "clock": (("--replay-now", "noon"), "request.invalid_time", "--replay-now"),
    "tape": (("--replay", "/no/such/tape"), "request.tape", "tape.toml"),
    "nobody there": (("--replay", "http://127.0.0.1:9"), "venue.unavailable", "lake replay"),
    "option": (("--symbol", "BTC/USDT"), "request", "--symbols"),
    "form": (("--format", "xml"), "request", "parquet"),
}


@pytest.mark.parametrize("case", BEFORE_ANYTHING_RUNS)
def test_a_mistake_is_told_before_a_lake_is_made(case, capsys, lake_root):
    wrong, code, remedy = BEFORE_ANYTHING_RUNS[case]
    words = dict(zip(BACKFILL[1::2], BACKFILL[2::2], strict=True))
    words |= {wrong[0]: wrong[1]}
    flat = [part for pair in words.items() for part in pair]
    exit_code, line = complaint(capsys, "backfill", *flat, "--root", lake_root)
    assert exit_code == (4 if code.startswith("venue") else 2)
    assert line.endswith(f"[{code}]")
    assert remedy in line
    assert not lake_root.exists()


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (("bars", "BTC-USDT-SPOT.BINANCE"), "request", "--timeframe"),
        (("bars", "--timeframe", "1h"), "request", "BTC-USDT-SPOT.BINANCE"),
        (("bars", "X", "--timeframe", "1h"), "request.invalid_name", "BTC-USDT-SPOT.BINANCE"),
        (("bars", "*", "--timeframe", "1h", "--verify"), "request", "--snapshot"),
        (("bars", "*", "--timeframe", "1h", "--history", "--known-at", "2026-03-01"),
         "request", "--known-at"),
        (("bars", "ETH-USDT-SPOT.BINANCE", "--timeframe", "1h"), "request.unknown_stream", ""),
        (("bars", "*", "--timeframe", "1h", "--snapshot", "x"), "request.unknown_snapshot", ""),
        (("ledger", "--state", "missing1"), "request", "Did you mean missing?"),
        (("ledger", "--limit", "-1"), "request", "count"),
        (("scan", "silver.bar"), "request.unknown_table", "silver.bars"),
        (("scan", "silver.bars", "--columns", "opn"), "request", "open"),
        (("snapshot", "create"), "request", "lake backfill"),
        (("snapshot", "verify"), "request", "lake snapshot create"),
        (("snapshot", "verify", "--quick", "--deep"), "request", "one of them"),
        (("update", "--recheck-hours", "-1"), "request", "from zero on"),
        (("replay", "--speed", "0"), "request", "stand"),
        (("update", "--replay-now", "2026-03-01"), "request", "--replay"),
        (("update",), "settings.lake_origin", "--root"),
        (("nonsense",), "request", "lake --help"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_question_that_cannot_be_answered(words, code, remedy, capsys, replayed, monkeypatch):
    monkeypatch.setenv("LAKE_ROOT", str(replayed))
    exit_code, line = complaint(capsys, *words)
    assert exit_code == 2
    assert line.endswith(f"[{code}]")
    assert remedy in line


def test_recorded_and_live_data_never_mix(capsys, replayed, tmp_path):
    words = ("backfill", *SOUND, "--end", "2026-03-02")
    assert complaint(capsys, *words, "--root", replayed)[1].endswith("[settings.lake_origin]")
    live = tmp_path / "live"
    assert main(["init", "--root", str(live)]) == 0
    capsys.readouterr()
    code, line = complaint(capsys, *BACKFILL, "--root", live)
    assert code == 2
    assert line.endswith("[settings.lake_origin]")


@pytest.mark.parametrize("command", [("bars", "*", "--timeframe", "1h"), ("update",), ("conform",)])
def test_no_lake_is_said_so(command, capsys, lake_root):
    code, line = complaint(capsys, *command, "--root", lake_root)
    assert code == 2
    assert line.endswith("[settings.lake_not_found]")


def test_a_tape_that_lacks_a_column_names_it(capsys, lake_root, tmp_path):
    tape = tmp_path / "tape"
    tape.mkdir()
    pl.DataFrame({"open_time": [0], "open": [1.0]}).write_parquet(tape / "bars.parquet")
    (tape / "tape.toml").write_text(
        '[[bars]]\nvenue = "binance"\nmarket = "spot"\nsymbol = "BTC/USDT"\n'
        'timeframe = "1h"\nfile = "bars.parquet"\n'
    )
    for named in (tape, tape / "tape.toml"):
        words = (*BACKFILL[:-1], named, "--root", lake_root)
        code, line = complaint(capsys, *words)
        assert code == 2
        assert line.endswith("[request.tape]")
        assert "high" in line
        assert "did not start" not in line
    assert not lake_root.exists()


def test_a_wrong_setting_names_its_variable(capsys, lake_root, monkeypatch):
    monkeypatch.setenv("LAKE_BATCH_PAGES", "many")
    code, line = complaint(capsys, *BACKFILL, "--root", lake_root)
    assert (code, "LAKE_BATCH_PAGES" in line) == (2, True)
    assert line.endswith("[settings]")


def test_an_unknown_symbol_offers_the_nearest_names(capsys, lake_root):
    words = ("backfill", "--symbols", "BTC/USTD", *BACKFILL[3:], "--root", lake_root)
    code, line = complaint(capsys, *words)
    assert code == 2
    assert "Did you mean BTC/USDT" in line
    assert line.endswith("[request.unknown_symbol]")


def test_a_bug_is_one_line_and_its_traceback_is_shown_on_demand(capsys, replayed, monkeypatch):
    def broken(*_, **__):
        raise KeyError("lost")

    monkeypatch.setattr(flows.cli.read, "_open", broken)
    words = ("ledger", "--root", replayed)
    code, line = complaint(capsys, *words)
    assert code == 70
    assert "KeyError" in line
    assert line.endswith("[invariant]")
    assert main([*map(str, words), "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("LAKE_DEBUG", "1")
    assert main([*map(str, words)]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_says_that_the_command_can_be_repeated(capsys, replayed, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.cli.read, "_open", interrupted)
    assert main(["ledger", "--root", str(replayed)]) == 130
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "run the same command again" in said[0]


@pytest.mark.parametrize("words", [["--help"], ["schema"], ["bars", "*", "--timeframe", "1h"]])
def test_commands_that_ask_no_venue_load_nothing_heavy(words, replayed, project):
    code = (
        "import sys; from flows.cli import main; main(sys.argv[1:]); "
        "heavy = ('ccxt', 'prefect', 'pandera', 'aiohttp', 'pandas', 'boto3'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words],
        cwd=project, env={**os.environ, "LAKE_ROOT": str(replayed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_plain_progress_tells_the_start_the_middle_and_the_end():
    now, said = [0.0], []
    lines = Lines("backfill", write=said.append, monotonic=lambda: now[0])
    lines.plan("a", 4)
    lines.plan("b", 2)
    lines.advance("a", 1, 1000)
    now[0] = 4.0
    lines.advance("a", 1, 2000)
    lines.waiting("binance: told to wait", 3.0)
    lines.note("PayloadError: odd")
    now[0] = 5.0
    lines.advance("b", 2, 500)
    lines.end()
    assert said == [
        "backfill: starting",
        "backfill: 2 streams, 6 pages",
        "backfill: 2/6 pages, 2,000 rows, 500 rows/s, about 8 s to go",
        "backfill: waiting 3.0 s: binance: told to wait",
        "backfill: PayloadError: odd",
        "backfill: 4/6 pages, 2,500 rows, 500 rows/s, 5.0 s",
    ]


def test_drawn_progress_shows_streams_waits_and_notes(capsys):
    with Bars() as bars:
        for number in range(14):
            bars.plan(f"stream {number}", 2)
        bars.waiting("binance: told to wait", 3.0)
        bars.waiting("binance: told to wait", 2.9)
        bars.advance("stream 0", 2, 1500)
        bars.advance("stream 1", 1, 700)
    said = capsys.readouterr().err
    assert said.count("told to wait") == 1
    assert "3/28 pages" in said
    assert "2,200 rows" in said
    assert "stream 12" in said, "a waiting stream takes the place of a finished one"
    with Bars():
        pass
    assert "nothing to ask" in capsys.readouterr().err
