"""The Binance adapter over real HTTP: what it asks, what it returns, how it keeps limits."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from venue_support import (
    HOUR,
    MINUTE,
    START,
    adapter_at,
    body,
    error,
    kline,
    page,
    serving,
)

from contracts.errors import (
    InvalidSpanError,
    PayloadError,
    RateLimitedError,
    UnknownSymbolError,
    UnsupportedByVenueError,
)
from contracts.names import MarketType, Timeframe, Venue
from contracts.time import Span, SteppedClock, to_millis
from flows.replay.generated import GeneratedTape
from flows.replay.limits import WeightLimiter
from flows.replay.server import ReplayExchange
from flows.venues import REGISTRY, open_venue, supported
from flows.venues.client import Backoff, raw_exchange, send
from flows.venues.limiter import Budget, WeightedLimiter

DAY = SteppedClock(START + timedelta(days=1))


async def test_a_page_is_asked_with_both_bounds_and_a_limit():
    async with serving() as server, adapter_at(server.url) as venue:
        response = await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
    request = server.seen[0]
    assert (request.method, request.path) == ("GET", "/api.binance.com/api/v3/klines")
    asked = {
        "symbol": "BTCUSDT",
        "interval": "1m",
        "startTime": str(to_millis(HOUR.start)),
        "endTime": str(to_millis(HOUR.end) - 1),
        "limit": "1000",
    }
    assert dict(request.query) == asked
    assert {name: str(value) for name, value in response.params.items()} == asked
    assert (response.venue, response.endpoint) == (Venue.BINANCE, "GET /api/v3/klines")
    assert (response.status, response.content_type) == (200, "application/json")
    assert response.requested_at == response.received_at == START + timedelta(days=1)
    assert venue.parse_bars(response)["open_time"].to_list() == [
        HOUR.start + timedelta(minutes=minute) for minute in range(60)
    ]


async def test_bounds_between_milliseconds_never_reach_outside_the_span():
    micro = timedelta(microseconds=1)
    async with serving() as server, adapter_at(server.url) as venue:
        await venue.fetch_bars("BTCUSDT", MINUTE, Span(HOUR.start + micro, HOUR.end + micro))
        await venue.fetch_first_bar("BTCUSDT", MINUTE, HOUR.start + micro)
    bounds = server.seen[0].query
    assert int(bounds["startTime"]) == to_millis(HOUR.start) + 1
    assert int(bounds["endTime"]) == to_millis(HOUR.end)
    assert int(server.seen[1].query["startTime"]) == to_millis(HOUR.start) + 1


async def test_the_first_bar_is_asked_without_an_end():
    async with serving() as server, adapter_at(server.url) as venue:
        response = await venue.fetch_first_bar("BTCUSDT", MINUTE, datetime(2017, 7, 1, tzinfo=UTC))
    assert set(server.seen[0].query) == {"symbol", "interval", "startTime", "limit"}
    assert server.seen[0].query["limit"] == "1"
    assert venue.parse_bars(response).height == 1


async def test_a_span_of_more_than_a_page_is_refused_before_asking():
    async with serving() as server, adapter_at(server.url) as venue:
        whole = Span(START, START + timedelta(minutes=1000))
        assert venue.parse_bars(await venue.fetch_bars("BTCUSDT", MINUTE, whole)).height == 1000
        longer = Span(START, START + timedelta(minutes=1000, seconds=1))
        with pytest.raises(InvalidSpanError, match="more than 1000 bars of 1m"):
            await venue.fetch_bars("BTCUSDT", MINUTE, longer)
    assert len(server.seen) == 1


async def test_a_timeframe_that_the_venue_does_not_offer_is_refused_before_asking():
    odd = Timeframe(timedelta(minutes=7), "7m")
    async with serving() as server, adapter_at(server.url) as venue:
        with pytest.raises(UnsupportedByVenueError, match="no bars of 7m") as caught:
            await venue.fetch_bars("BTCUSDT", odd, HOUR)
        for timeframe in Timeframe.all():
            venue.check_timeframe(timeframe)
    assert "1m, 3m, 5m" in caught.value.remedy
    assert server.seen == []


async def test_the_body_is_kept_to_the_byte():
    raw = b" [\n" + json.dumps(kline(to_millis(START))).encode() + b"]\r\n"
    zipped = body(gzip.compress(raw), headers={"Content-Encoding": "gzip"})
    async with serving(body(raw), zipped) as server, adapter_at(server.url) as venue:
        assert (await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)).body == raw
        assert (await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)).body == raw


async def test_concurrent_calls_never_mix_their_answers():
    async def answer(request):
        await asyncio.sleep(int(request.query["startTime"]) // 60_000 % 7 / 200)
        return web.Response(body=page(request.query), content_type="application/json")

    spans = [Span(START + timedelta(hours=at), START + timedelta(hours=at + 1))
             for at in range(40)]  # fmt: skip
    async with serving(always=answer) as server, adapter_at(server.url, concurrency=16) as venue:
        responses = await asyncio.gather(
            *(venue.fetch_bars("BTCUSDT", MINUTE, span) for span in spans)
        )
    for span, response in zip(spans, responses, strict=True):
        assert response.params["startTime"] == to_millis(span.start)
        assert venue.parse_bars(response)["open_time"][0] == span.start
    assert venue.parse_bars_many(responses)["open_time"].is_sorted()


async def test_no_more_requests_are_under_way_than_allowed():
    under_way, most = 0, 0

    async def answer(request):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response(body=page(request.query), content_type="application/json")

    async with serving(always=answer) as server, adapter_at(server.url, concurrency=3) as venue:
        await asyncio.gather(*(venue.fetch_bars("BTCUSDT", MINUTE, HOUR) for _ in range(12)))
    assert most == 3


async def test_the_clock_of_the_venue():
    async with serving() as server, adapter_at(server.url) as venue:
        assert await venue.server_time() == datetime(2026, 3, 24, 0, 0, 0, 123_000, tzinfo=UTC)
    assert server.seen[0].path == "/api.binance.com/api/v3/time"


async def test_instruments_of_a_strange_shape_are_kept_and_refused():
    kept = []
    async with (
        serving(always=body(b'{"symbols":[{"symbol":"BTCUSDT"}]}')) as server,
        adapter_at(server.url, on_failed_response=kept.append) as venue,
    ):
        with pytest.raises(PayloadError, match="symbol 0, status: None is no name"):
            await venue.fetch_instruments()
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (None, "https://api.binance.com/api/v3"),
        ("https://data-api.binance.vision/", "https://data-api.binance.vision/api/v3"),
        ("http://127.0.0.1:18080", "http://127.0.0.1:18080/api.binance.com/api/v3"),
    ],
)
async def test_where_requests_go(base_url, expected):
    mirrors = ("https://data-api.binance.vision",)
    exchange = raw_exchange("binance", None, base_url=base_url, mirrors=mirrors)
    assert exchange.urls["api"]["public"] == expected
    assert exchange.enableRateLimit is False


async def test_a_ban_stops_every_worker_until_it_ends():
    banned = error(418, -1003, "banned", headers={"Retry-After": "1"})
    waits, told = [], asyncio.Event()

    def on_wait(reason, seconds):
        waits.append((reason, seconds))
        told.set()

    limiter = WeightedLimiter("binance", Budget(6000, 60))
    async with (
        serving(banned) as server,
        adapter_at(
            server.url,
            limiter=limiter,
            concurrency=4,
            on_wait=on_wait,
        ) as venue,
    ):
        began = time.monotonic()
        first = asyncio.create_task(venue.fetch_bars("BTCUSDT", MINUTE, HOUR))
        await told.wait()
        asked = len(server.seen)
        rest = [venue.fetch_bars("ETHUSDT", MINUTE, HOUR) for _ in range(6)]
        await asyncio.sleep(0.5)
        assert len(server.seen) == asked == 1
        await asyncio.gather(first, *rest)
    assert time.monotonic() - began >= 1
    assert len(server.seen) == 8
    assert "banned for asking on" in waits[0][0]
    assert 0.8 < waits[0][1] <= 1


async def test_workers_that_wait_learn_of_a_long_ban_as_well():
    banned = error(418, -1003, "banned", headers={"Retry-After": "3600"})
    async with serving(banned) as server, adapter_at(server.url, concurrency=1) as venue:
        outcomes = await asyncio.gather(
            *(venue.fetch_bars(symbol, MINUTE, HOUR) for symbol in ("A", "B", "C")),
            return_exceptions=True,
        )
    assert [type(outcome) for outcome in outcomes] == [RateLimitedError] * 3
    assert [outcome.symbol for outcome in outcomes] == ["A", "B", "C"]
    assert len(server.seen) == 1


async def test_retries_pause_at_random_below_a_limit_that_doubles():
    backoff = Backoff(first_seconds=0.5, most_seconds=3)
    assert [backoff.pause(attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 9)] == [0.5, 1, 2, 3, 3]
    assert backoff.pause(3, lambda: 0.25) == 0.5
    assert 0 <= backoff.pause(1) <= 0.5


async def test_the_pause_before_a_retry_is_told():
    waits = []
    async with (
        serving(error(500, -1000)) as server,
        adapter_at(server.url, on_wait=lambda *what: waits.append(what)) as venue,
    ):
        await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
    assert waits[0][0] == "binance: it failed inside, attempt 1 failed"


async def test_a_retry_after_of_the_venue_is_kept_before_a_retry():
    overloaded = error(503, -1008, headers={"Retry-After": "1"})
    async with serving(overloaded) as server, adapter_at(server.url) as venue:
        began = time.monotonic()
        await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
    assert time.monotonic() - began >= 1


@pytest.fixture(scope="module")
def tape():
    return GeneratedTape(days=1)


async def test_the_replay_exchange_is_read_like_the_venue(tape):
    async with (
        ReplayExchange(tape) as twin,
        open_venue(Venue.BINANCE, clock=DAY, base_url=twin.base_url) as venue,
    ):
        listed = venue.parse_instruments(await venue.fetch_instruments())
        symbol = listed["venue_symbol"][0]
        first = await venue.fetch_first_bar(symbol, MINUTE, datetime(2017, 1, 1, tzinfo=UTC))
        opened = venue.parse_bars(first)["open_time"][0]
        span = Span(opened, opened + timedelta(minutes=30))
        bars = venue.parse_bars(await venue.fetch_bars(symbol, MINUTE, span))
        now = await venue.server_time()
        with pytest.raises(UnknownSymbolError):
            await venue.fetch_bars("NOSUCH", MINUTE, span)
    assert bars["open_time"][0] == opened
    assert bars.height == 30
    assert now > opened
    assert (venue.market_type, venue.page_bars) == (MarketType.SPOT, 1000)


@pytest.mark.parametrize("kind", ["html", "truncated", "empty", "reset", "slow_body"])
async def test_faults_of_the_replay_exchange_are_overcome(tape, kind):
    async with ReplayExchange(tape) as twin, adapter_at(twin.base_url) as venue:
        symbol = venue.parse_instruments(await venue.fetch_instruments())["venue_symbol"][0]
        opened = venue.parse_bars(
            await venue.fetch_first_bar(symbol, MINUTE, datetime(2017, 1, 1, tzinfo=UTC))
        )["open_time"][0]
        span = Span(opened, opened + timedelta(minutes=30))
        good = await venue.fetch_bars(symbol, MINUTE, span)
        options = {"seconds": 0.05} if kind == "slow_body" else {}
        twin.faults.arm(kind, endpoint="klines", times=2, **options)
        again = await venue.fetch_bars(symbol, MINUTE, span)
    assert again.body == good.body


async def test_a_real_server_is_never_provoked_and_used_to_95_percent(tape):
    window, weight = 1.5, 150
    limits = WeightLimiter(limit=weight, window_seconds=window)
    limiter = WeightedLimiter("binance", Budget(weight, window))
    waits = []
    async with (
        ReplayExchange(tape, limits=limits) as twin,
        adapter_at(
            twin.base_url, limiter=limiter, on_wait=lambda *what: waits.append(what)
        ) as venue,
    ):
        symbol = venue.parse_instruments(await venue.fetch_instruments())["venue_symbol"][0]
        began = time.monotonic()
        answered = []

        async def ask():
            while time.monotonic() < began + 3.2 * window:
                await venue.fetch_first_bar(symbol, MINUTE, START)
                answered.append(time.monotonic() - began)

        await asyncio.gather(*(ask() for _ in range(8)))
    full = [at for at in answered if window <= at < 3 * window]
    assert limits._refusals == 0
    assert not [reason for reason, _ in waits if "used up (HTTP" in reason]
    assert 2 * len(full) >= 0.95 * weight * 2


def test_every_venue_of_the_registry_has_its_file_and_facts():
    assert supported() == tuple(REGISTRY)
    for module, name in REGISTRY.values():
        facts = importlib.import_module(module)
        adapter = getattr(facts, name)
        assert adapter.page_bars > 0
        assert adapter.timeframes <= {timeframe.code for timeframe in Timeframe.all()}
        assert facts.__doc__
        for fact in ("CCXT_NAME", "BUDGET", "USED_WEIGHT_HEADER", "MIRRORS"):
            assert hasattr(facts, fact)


async def test_a_venue_without_an_adapter_is_named():
    with pytest.raises(UnsupportedByVenueError, match="no adapter for okx") as caught:
        async with open_venue(Venue.OKX, clock=DAY):
            pass
    assert "binance" in caught.value.remedy


async def test_adapters_of_one_address_share_their_limits():
    async with (
        serving() as server,
        open_venue(Venue.BINANCE, clock=DAY, base_url=server.url) as one,
        open_venue(Venue.BINANCE, clock=DAY, base_url=f"{server.url}/") as other,
        open_venue(Venue.BINANCE, clock=DAY, base_url=server.url, limit=False) as free,
    ):
        assert one._client._limiter is other._client._limiter
        assert free._client._limiter is not one._client._limiter
        assert one._client._limiter.budget == Budget(6000, 60)
        assert free._client._limiter.budget is None


async def test_failed_answers_reach_the_caller_of_open_venue():
    kept = []
    async with (
        serving(error(400, -1121, "Invalid symbol.")) as server,
        open_venue(
            Venue.BINANCE, clock=DAY, base_url=server.url, on_failed_response=kept.append
        ) as venue,
    ):
        with pytest.raises(UnknownSymbolError):
            await venue.fetch_bars("XXX", MINUTE, HOUR)
    assert [response.status for response in kept] == [400]


def test_importing_the_registry_loads_nothing_heavy(project):
    import subprocess
    import sys

    script = "import sys, flows.venues; print([m for m in sys.modules if m in ('ccxt', 'aiohttp')])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


async def test_redirects_are_not_followed():
    import aiohttp

    async with (
        serving(body(b"", status=302, headers={"Location": "/other"})) as server,
        aiohttp.ClientSession() as session,
    ):
        answer = await send(session, f"{server.url}/x")
    assert answer.status == 302
    assert len(server.seen) == 1


async def test_the_params_of_a_landed_page_tell_what_was_asked():
    async with serving() as server, adapter_at(server.url) as venue:
        page_asked = await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
        first_asked = await venue.fetch_first_bar("BTCUSDT", MINUTE, START)
    asked = venue.asked_bars(page_asked.params)
    assert (asked.venue_symbol, asked.timeframe, asked.span) == ("BTCUSDT", MINUTE, HOUR)
    assert venue.asked_bars(first_asked.params) is None
