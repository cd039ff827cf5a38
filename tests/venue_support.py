"""A small scripted HTTP server for tests of the venue adapters, and what they ask it with."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web

from contracts.names import Timeframe, Venue
from contracts.time import Span, SteppedClock
from flows.venues.binance import BUDGET, CCXT_NAME, MIRRORS, USED_WEIGHT_HEADER, BinanceSpot
from flows.venues.client import Backoff, VenueClient, raw_exchange
from flows.venues.limiter import WeightedLimiter

START = datetime(2026, 3, 24, tzinfo=UTC)
MINUTE = Timeframe.parse("1m")
HOUR = Span(START, START + timedelta(hours=1))


def kline(opened_millis, minutes=1):
    close = opened_millis + minutes * 60_000 - 1
    return [opened_millis, "1.5", "2.0", "1.0", "1.7", "10.0", close, "17.0", 3, "4.0", "6.8", "0"]


def page(query):
    """The bars that a request for 1m klines asks for."""
    start = -(-int(query["startTime"]) // 60_000) * 60_000
    end = int(query.get("endTime", start + 10**12))
    rows = range(start, end + 1, 60_000)[: int(query["limit"])]
    return json.dumps([kline(opened) for opened in rows]).encode()


def error(status, code=None, message="told", *, headers=None):
    body = json.dumps({"code": code, "msg": message}) if code is not None else message
    kind = "application/json" if code is not None else "text/html"
    return lambda _: web.Response(status=status, text=body, content_type=kind, headers=headers)


def body(raw, *, status=200, kind="application/json", headers=None):
    return lambda _: web.Response(status=status, body=raw, content_type=kind, headers=headers)


async def reset(request):
    connection = request.transport.get_extra_info("socket")
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.transport.abort()
    return web.Response()


async def hang(_):
    await asyncio.sleep(5)
    return web.Response()


async def cut(request):
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"[[1774310400000,")
    request.transport.close()
    return answer


@dataclass
class VenueServer:
    """Answers with a script of handlers, first come first served; then with good pages."""

    script: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    url: str = ""
    always: object = None

    async def handle(self, request):
        self.seen.append(request)
        handler = self.script.pop(0) if self.script else self.always
        if handler is not None:
            answer = handler(request)
            return await answer if asyncio.iscoroutine(answer) else answer
        if request.path.endswith("/time"):
            return web.json_response({"serverTime": 1774310400123})
        if request.path.endswith("/exchangeInfo"):
            return web.json_response({"symbols": []})
        headers = {"X-MBX-USED-WEIGHT-1M": "2"}
        return web.Response(
            body=page(request.query), content_type="application/json", headers=headers
        )


@asynccontextmanager
async def serving(*script, always=None):
    server = VenueServer(list(script), always=always)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def adapter_at(url, *, limiter=None, clock=None, timeout_seconds=5.0, **options):
    """The Binance adapter with hurried backoff, at a server of ours."""
    options.setdefault("backoff", Backoff(first_seconds=0.001, most_seconds=0.01))
    settings = aiohttp.ClientTimeout(total=timeout_seconds)
    async with aiohttp.ClientSession(timeout=settings) as session:
        client = VenueClient(
            Venue.BINANCE,
            raw_exchange(CCXT_NAME, session, base_url=url, mirrors=MIRRORS),
            limiter=limiter or WeightedLimiter("binance", BUDGET),
            clock=clock or SteppedClock(START + timedelta(days=1)),
            used_weight_header=USED_WEIGHT_HEADER,
            **options,
        )
        yield BinanceSpot(client)
