"""Every kind of fault, and the limits, as a client sees them over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest
from replay_support import Client, ms

from contracts.errors import RequestError
from flows.replay.faults import STATUSES, FaultBook, FaultKind
from flows.replay.generated import GeneratedTape
from flows.replay.limits import WeightLimiter
from flows.replay.server import ReplayExchange

START = ms("2026-03-01T00:10")
WINDOW = {"startTime": START, "endTime": ms("2026-03-01T00:21")}


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


async def raw(twin, **query):
    asked = {"symbol": "BTCUSDT", "interval": "1m", **WINDOW, **query}
    return await twin.text("/api/v3/klines", **asked)


CODES = {418: -1003, 429: -1003, 451: 0, 500: -1000, 503: -1007}


@pytest.mark.parametrize("status", STATUSES)
async def test_status(twin, status):
    twin.exchange.faults.arm("status", status=status, retry_after_seconds=7)
    got, headers, text = await raw(twin)
    assert got == status
    if status in CODES:
        assert json.loads(text)["code"] == CODES[status]
        assert headers["Content-Type"].startswith("application/json")
    else:
        assert text.startswith("<html>")
        assert headers["Content-Type"].startswith("text/html")
    assert headers.get("Retry-After") == ("7" if status in (418, 429) else None)
    assert (await raw(twin))[0] == 200


async def test_html_with_200(twin):
    twin.exchange.faults.arm("html")
    status, headers, text = await raw(twin)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert text.startswith("<html>")


async def test_truncated_json(twin):
    _, _, whole = await raw(twin)
    twin.exchange.faults.arm("truncated")
    status, _, text = await raw(twin)
    assert status == 200
    assert whole.startswith(text)
    assert 0 < len(text) < len(whole)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.parametrize(("kind", "body"), [("empty", ""), ("empty_list", "[]")])
async def test_empty_bodies(twin, kind, body):
    twin.exchange.faults.arm(kind)
    status, _, text = await raw(twin)
    assert (status, text) == (200, body)


async def test_reset(twin):
    twin.exchange.faults.arm("reset", times=5)
    with pytest.raises(aiohttp.ClientConnectionError):
        await raw(twin)
    twin.exchange.faults.clear()
    assert (await raw(twin))[0] == 200


async def test_hang(twin):
    twin.exchange.faults.arm("hang", seconds=5.0)
    with pytest.raises(TimeoutError):
        await twin.session.get(
            f"{twin.base_url}/api.binance.com/api/v3/ping",
            timeout=aiohttp.ClientTimeout(total=0.2),
        )
    started = time.monotonic()
    twin.exchange.faults.arm("hang", seconds=0.3)
    assert len(await twin.klines(**WINDOW)) == 12
    assert time.monotonic() - started >= 0.3


async def test_slow_body(twin):
    twin.exchange.faults.arm("slow_body", seconds=0.3)
    url = f"{twin.base_url}/api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m"
    started = time.monotonic()
    async with twin.session.get(url) as response:
        headers_after = time.monotonic() - started
        assert len(json.loads(await response.text())) == 500
    assert headers_after < 0.2
    assert time.monotonic() - started >= 0.3


async def test_duplicated_rows(twin):
    good = await twin.klines(**WINDOW)
    twin.exchange.faults.arm("duplicated_rows")
    assert await twin.klines(**WINDOW) == [row for row in good for _ in range(2)]


@pytest.mark.parametrize(
    "query",
    [WINDOW, {"startTime": START, "limit": 5}, {"endTime": START, "limit": 5}, {"limit": 5}],
    ids=["both", "start", "end", "none"],
)
async def test_shifted_page(twin, query):
    good = await twin.klines(**query)
    twin.exchange.faults.arm("shifted_page")
    bad = await twin.klines(**query)
    assert len(bad) == len(good)
    lower = query.get("startTime", float("-inf"))
    upper = query.get("endTime", good[-1][0])
    assert not [row for row in bad if lower <= row[0] <= upper]
    assert {row[6] - row[0] for row in bad} == {59_999}
    assert {row[0] % 60_000 for row in bad} == {0}


async def test_missing_rows(twin):
    good = await twin.klines(**WINDOW)
    twin.exchange.faults.arm("missing_rows")
    bad = await twin.klines(**WINDOW)
    assert bad == good[:4] + good[8:]


@pytest.mark.parametrize("chosen", [None, ms("2026-03-01T00:12")])
async def test_revised_bar_on_a_second_fetch(twin, chosen):
    twin.exchange.faults.arm("revised_bar", after=1, open_millis=chosen)
    good, bad, again = [await twin.klines(**WINDOW) for _ in range(3)]
    assert good == again
    [changed] = [number for number, row in enumerate(good) if bad[number] != row]
    assert good[changed][0] == (chosen or good[len(good) // 2][0])
    _, opened, high, low, close, volume, *_ = bad[changed]
    assert float(low) <= min(float(opened), float(close))
    assert max(float(opened), float(close)) <= float(high)
    assert float(volume) == pytest.approx(float(good[changed][5]) + 1)
    assert close != good[changed][4]


async def test_faults_wait_for_endpoint_symbol_and_count(twin):
    book = twin.exchange.faults
    book.arm("empty", endpoint="klines", symbol="ETHUSDT", times=2, after=1)
    symbols = ("BTCUSDT", "ETHUSDT", "ETHUSDT", "BTCUSDT", "ETHUSDT", "ETHUSDT")
    answers = [(await raw(twin, symbol=symbol))[2] == "" for symbol in symbols]
    assert answers == [False, False, True, False, True, False]
    assert (await twin.text("/api/v3/time"))[2] != ""
    assert [(entry.kind, entry.symbol) for entry in book.log] == [("empty", "ETHUSDT")] * 2
    assert [entry.request_number for entry in book.log] == [3, 5]
    assert book.armed[0].spent


async def test_faults_of_rows_wait_for_an_answer_with_rows(twin):
    twin.exchange.faults.arm("missing_rows")
    await twin.json("/api/v3/time")
    assert not twin.exchange.faults.log
    assert len(await twin.klines(**WINDOW)) == 8


def test_every_kind_has_a_test_here():
    text = Path(__file__).read_text()
    assert [kind for kind in FaultKind if f'"{kind}"' not in text] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "explode"}, "'explode' is not a kind"),
        ({"kind": "status", "status": 999}, "status 999 cannot"),
        ({"kind": "hang", "minutes": 1}, "no 'minutes'"),
        ({"kind": "empty", "times": -1}, "below zero"),
        ({"kind": "empty", "after": "x"}, "wrong type"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fields, message):
    with pytest.raises(RequestError, match=message):
        FaultBook().arm(**fields)


async def test_weights_are_counted_in_headers_and_statistics(twin):
    used = []
    for path, query in (
        ("ping", {}),
        ("time", {}),
        ("exchangeInfo", {}),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m"}),
    ):
        _, headers, _ = await twin.text(f"/api/v3/{path}", **query)
        assert headers["X-MBX-USED-WEIGHT"] == headers["X-MBX-USED-WEIGHT-1M"]
        used.append(int(headers["X-MBX-USED-WEIGHT-1M"]))
    assert used == [1, 2, 22, 24]
    stats = twin.exchange.stats
    assert stats.requests["api.binance.com/api/v3/klines"] == 1
    assert stats.weights["api.binance.com/api/v3/exchangeInfo"] == 20
    assert stats.statuses == {200: 4}


async def test_429_above_the_limit_then_418_then_served_again(tape):
    real = [0.0]
    limiter = WeightLimiter(
        limit=5, window_seconds=1.5, patience=2, ban_seconds=90, monotonic=lambda: real[0]
    )
    async with (
        ReplayExchange(tape, limits=limiter) as exchange,
        aiohttp.ClientSession() as session,
    ):
        client = Client(exchange.base_url, session)
        seen = [await client.text("/api/v3/klines", symbol="BTCUSDT", interval="1m")]
        seen += [await client.text("/api/v3/time") for _ in range(7)]
        assert [status for status, _, _ in seen] == [200, 200, 200, 200, 429, 429, 418, 418]
        refused, banned = json.loads(seen[4][2]), json.loads(seen[6][2])
        assert refused["code"] == banned["code"] == -1003
        assert "current limit is 5 request weight per 1 MINUTE" in refused["msg"]
        assert "IP banned until" in banned["msg"]
        waits = [headers.get("Retry-After") for _, headers, _ in seen[3:7]]
        assert waits == [None, "2", "2", "90"]
        assert int(seen[4][1]["X-MBX-USED-WEIGHT-1M"]) == 6
        assert exchange.stats.statuses == {200: 4, 429: 2, 418: 2}
        real[0] = 89.9
        assert (await client.text("/api/v3/time"))[0] == 418
        real[0] = 90.1
        assert (await client.text("/api/v3/time"))[0] == 200


async def test_the_window_runs_on_real_time(tape):
    limiter = WeightLimiter(limit=1, window_seconds=0.2)
    async with (
        ReplayExchange(tape, limits=limiter) as exchange,
        aiohttp.ClientSession() as session,
    ):
        client = Client(exchange.base_url, session)
        assert (await client.text("/api/v3/klines", symbol="BTCUSDT", interval="1m"))[0] == 429
        await asyncio.sleep(0.25)
        assert (await client.text("/api/v3/time"))[0] == 200


async def test_limits_can_be_off(tape):
    limiter = WeightLimiter(limit=1, enabled=False)
    async with (
        ReplayExchange(tape, limits=limiter) as exchange,
        aiohttp.ClientSession() as session,
    ):
        client = Client(exchange.base_url, session)
        statuses = [(await client.text("/api/v3/time"))[0] for _ in range(5)]
    assert statuses == [200] * 5
    assert limiter.used == 5


def test_a_window_forgets_and_a_ban_lasts():
    now = [0.0]
    limiter = WeightLimiter(limit=10, patience=1, ban_seconds=90, monotonic=lambda: now[0])
    assert limiter.charge(10).status == 200
    now[0] = 59.5
    refused = limiter.charge(1)
    assert (refused.status, refused.retry_after_seconds, refused.used) == (429, 1, 11)
    now[0] = 60.0
    assert limiter.charge(3).used == 3
    now[0] = 61.2
    assert [limiter.charge(8).status for _ in range(2)] == [429, 418]
    now[0] = 130.0
    banned = limiter.charge(1)
    assert (banned.status, banned.retry_after_seconds) == (418, 22)
    now[0] = 151.3
    assert limiter.charge(1).status == 200
