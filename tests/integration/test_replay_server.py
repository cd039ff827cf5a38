"""The replay exchange driven from outside: clock, faults and statistics over HTTP, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import aiohttp
import pytest
from replay_support import Client, bars_frame, entry, write_tape

from contracts.errors import InvalidTimeError, RequestError, TapeError
from contracts.time import Clock, parse_time
from flows.replay.__main__ import main
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.process import open_tape, run_in_process, serve
from flows.replay.server import ReplayExchange


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape(days=1)


@pytest.fixture
async def twin(tape):
    async with (
        ReplayExchange(tape) as exchange,
        aiohttp.ClientSession() as session,
    ):
        client = Client(exchange.base_url, session)
        client.exchange = exchange
        yield client


def test_the_clock_stands_steps_sets_runs_and_stops():
    real = [100.0]
    clock: Clock = ReplayClock(parse_time("2026-03-01"), monotonic=lambda: real[0])
    real[0] += 50
    assert clock.known() == parse_time("2026-03-01")
    clock.run(60)
    real[0] += 1.5
    assert clock.known() == parse_time("2026-03-01T00:01:30")
    clock.step(parse_time("2026-03-02") - parse_time("2026-03-01"))
    assert clock.known() == parse_time("2026-03-02T00:01:30")
    clock.set(parse_time("2026-04-01"))
    real[0] += 1
    assert clock.known() == parse_time("2026-04-01T00:01")
    clock.run(1)
    real[0] += 1
    assert clock.known() == parse_time("2026-04-01T00:01:01")
    clock.stop()
    real[0] += 9
    assert clock.known() == parse_time("2026-04-01T00:01:01")
    assert not clock.running
    assert clock.storage().year >= 2026
    for speed in (0, -1, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="not above zero"):
            clock.run(speed)
    with pytest.raises(InvalidTimeError):
        clock.set(parse_time("2026-04-01").replace(tzinfo=None))


async def test_the_clock_moves_over_http(twin):
    assert await twin.control("GET", "clock") == (
        200,
        {"known": "2026-03-02T00:01:00Z", "running": False, "speed": 0.0},
    )
    _, shown = await twin.control("POST", "clock", {"set": "2026-03-01T05:00Z"})
    assert shown["known"] == "2026-03-01T05:00:00Z"
    _, shown = await twin.control("POST", "clock", {"step_seconds": 90})
    assert shown["known"] == "2026-03-01T05:01:30Z"
    assert (await twin.klines(limit=1))[0][0] == 1772341260000
    _, shown = await twin.control("POST", "clock", {"run": 3600})
    assert shown["running"]
    first = (await twin.json("/api/v3/time"))["serverTime"]
    while (await twin.json("/api/v3/time"))["serverTime"] <= first:
        pass
    _, shown = await twin.control("POST", "clock", {"stop": True})
    assert not shown["running"]
    assert twin.exchange.clock.known() > parse_time("2026-03-01T05:01:30")


@pytest.mark.parametrize(
    "content",
    [{}, {"set": "soon"}, {"run": 0}, {"run": "fast"}, {"jump": 1}, {"stop": False}, [1],
     {"set": 5}, {"set": "2026-03-01", "run": 1}],
    ids=str,
)  # fmt: skip
async def test_a_move_that_is_none_is_refused(twin, content):
    before = await twin.control("GET", "clock")
    status, answer = await twin.control("POST", "clock", content)
    assert status == 400
    assert answer["code"].startswith("request")
    assert answer["message"]
    assert await twin.control("GET", "clock") == before


async def test_faults_are_armed_read_and_cleared_over_http(twin):
    status, fault = await twin.control(
        "POST", "faults", {"kind": "status", "status": 451, "endpoint": "time", "times": None}
    )
    assert (status, fault["status"], fault["struck"]) == (201, 451, 0)
    assert (await twin.text("/api/v3/time"))[0] == 451
    _, shown = await twin.control("GET", "faults")
    assert [each["struck"] for each in shown["armed"]] == [1]
    assert shown["log"][0] == {
        "kind": "status",
        "endpoint": "api.binance.com/api/v3/time",
        "symbol": None,
        "request_number": 1,
    }
    _, shown = await twin.control("DELETE", "faults")
    assert shown["armed"] == []
    assert (await twin.text("/api/v3/time"))[0] == 200
    for content in ({}, {"kind": "x"}, {"kind": "hang", "struck": 3}):
        status, answer = await twin.control("POST", "faults", content)
        assert (status, answer["code"]) == (400, "request")


async def test_statistics_and_origin_over_http(twin, tape):
    await twin.klines()
    _, stats = await twin.control("GET", "stats")
    assert stats == {
        "requests": {"api.binance.com/api/v3/klines": 1},
        "weights": {"api.binance.com/api/v3/klines": 2},
        "statuses": {"200": 1},
        "faults": {},
    }
    _, about = await twin.control("GET", "")
    assert about["origin"] == tape.origin
    assert about["bars"][0] == {
        "venue": "binance",
        "canonical_id": "BTC-USDT-SPOT",
        "timeframe": "1m",
    }


async def test_it_listens_on_loopback_only_and_frees_its_port(tape):
    async with ReplayExchange(tape) as exchange:
        assert [address[0] for address in exchange._runner.addresses] == ["127.0.0.1"]
        port = exchange.port
    async with ReplayExchange(tape, port=port) as exchange:
        assert exchange.base_url == f"http://127.0.0.1:{port}"


def ask(url: str):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def test_run_in_process_serves_and_stops():
    with run_in_process(now="2026-03-01T12:00Z", days=1, limits=False) as base_url:
        assert ask(f"{base_url}/api.binance.com/api/v3/time") == {"serverTime": 1772366400000}
        assert ask(f"{base_url}/_replay/")["origin"] == GeneratedTape(days=1).origin
    with pytest.raises(urllib.error.URLError):
        ask(f"{base_url}/api.binance.com/api/v3/time")


def test_run_in_process_says_why_it_did_not_start(tmp_path):
    with (
        pytest.raises(TapeError, match=r"did not start: .*tape\.toml cannot be read"),
        run_in_process(tmp_path),
    ):
        pass


@pytest.mark.parametrize("way", ["signal", "stdin"])
def test_the_command_ends_cleanly(tmp_path, way):
    bars_frame("2026-03-01", 3).write_parquet(tmp_path / "a.parquet")
    write_tape(tmp_path, entry("a.parquet"))
    command = [sys.executable, "-m", "flows.replay", str(tmp_path), "--speed", "2"]
    command += ["--stop-with-stdin"] if way == "stdin" else []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        started = json.loads(process.stdout.readline())
        assert ask(f"{started['base_url']}/_replay/clock")["speed"] == 2.0
        if way == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_serve_sets_and_runs_the_clock_until_a_signal():
    started = []

    def listening(exchange):
        started.append((exchange.clock.known(), exchange.clock.speed, exchange.limiter.enabled))
        os.kill(os.getpid(), signal.SIGTERM)

    now = parse_time("2026-03-01T12:00")
    tape = open_tape("generated", days=1)
    await serve(tape, now=now, speed=0.001, limits=False, on_listening=listening)
    [(known, speed, limited)] = started
    assert (known - now).total_seconds() < 1
    assert (speed, limited) == (0.001, False)


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "tape.toml cannot be read" in capsys.readouterr().err
    assert main(["--days", "1", "--now", "soon"]) == 2
    assert "--now 'soon' is not a time" in capsys.readouterr().err
