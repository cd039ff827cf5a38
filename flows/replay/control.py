"""Driving a replay exchange over HTTP: clock, faults, statistics.

==========================  ======================================================
GET    /_replay/            origin of the tape, series, hosts
GET    /_replay/clock       ``{"known", "running", "speed"}``
POST   /_replay/clock       one of ``{"set": TIME}`` ``{"step_seconds": N}``
                            ``{"run": SPEED}`` ``{"stop": true}``
GET    /_replay/faults      ``{"armed": [...], "log": [...]}``
POST   /_replay/faults      the fields of ``flows.replay.faults.Fault``
DELETE /_replay/faults      disarm all
GET    /_replay/stats       requests, weights, statuses, faults
==========================  ======================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

from contracts.errors import RequestError
from contracts.names import MarketType, Venue
from contracts.time import iso, parse_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flows.replay.server import ReplayExchange

    Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_routes(app: web.Application, exchange: ReplayExchange) -> None:
    """Add the control routes of ``exchange`` to its application."""
    control = _Control(exchange)
    router = app.router
    router.add_get("/_replay/", control.about)
    router.add_get("/_replay/clock", control.clock)
    router.add_post("/_replay/clock", _checked(control.move_clock))
    router.add_get("/_replay/faults", control.faults)
    router.add_post("/_replay/faults", _checked(control.arm))
    router.add_delete("/_replay/faults", control.disarm)
    router.add_get("/_replay/stats", control.stats)


class _Control:
    def __init__(self, exchange: ReplayExchange) -> None:
        self._exchange = exchange

    async def about(self, request: web.Request) -> web.Response:
        tape = self._exchange.tape
        series = [
            {"venue": venue, "canonical_id": str(canonical_id), "timeframe": str(timeframe)}
            for venue in Venue
            for market_type in MarketType
            for canonical_id, timeframe in tape.bar_series(venue, market_type)
        ]
        return web.json_response({"origin": tape.origin, "bars": series})

    async def clock(self, request: web.Request) -> web.Response:
        clock = self._exchange.clock
        shown = {"known": iso(clock.known()), "running": clock.running, "speed": clock.speed}
        return web.json_response(shown)

    async def move_clock(self, request: web.Request) -> web.Response:
        content = await _content(request)
        clock = self._exchange.clock
        if len(content) != 1:
            raise _not_a_move(content)
        [(move, value)] = content.items()
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if move == "set":
            clock.set(parse_time(value, name="set"))
        elif move == "step_seconds" and number:
            clock.step(timedelta(seconds=value))
        elif move == "run" and number:
            clock.run(value)
        elif move == "stop" and value is True:
            clock.stop()
        else:
            raise _not_a_move(content)
        return await self.clock(request)

    async def faults(self, request: web.Request) -> web.Response:
        book = self._exchange.faults
        armed = [fault.as_json() for fault in book.armed]
        return web.json_response({"armed": armed, "log": [asdict(entry) for entry in book.log]})

    async def arm(self, request: web.Request) -> web.Response:
        content = await _content(request)
        fault = self._exchange.faults.arm(content.pop("kind", ""), **content)
        return web.json_response(fault.as_json(), status=201)

    async def disarm(self, request: web.Request) -> web.Response:
        self._exchange.faults.clear()
        return await self.faults(request)

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(self._exchange.stats.as_json())


def _checked(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RequestError as error:
            return web.json_response({"code": error.code, "message": str(error)}, status=400)

    return answer


async def _content(request: web.Request) -> dict[str, Any]:
    try:
        content = json.loads(await request.text())
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}", remedy="Send an object") from error
    if not isinstance(content, dict):
        raise RequestError("the body is no JSON object", remedy="Send an object")
    return content


def _not_a_move(content: dict[str, Any]) -> RequestError:
    return RequestError(
        f"{json.dumps(content)} does not move the clock",
        remedy='Send one of {"set": "2026-04-01T10:00Z"}, {"step_seconds": 60}, {"run": 10}, '
        '{"stop": true}',
    )
