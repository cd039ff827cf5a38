"""The replay exchange: twins of venues behind one loopback HTTP server.

The path of a request starts with the host that it would go to:
``http://127.0.0.1:PORT/api.binance.com/api/v3/klines``. Under ``/_replay/`` another process
reads and moves the clock, arms faults and reads the statistics (``flows.replay.control``).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from contracts.names import MarketType, Venue
from flows.replay import control
from flows.replay.binance import BinanceTwin
from flows.replay.clock import ReplayClock
from flows.replay.faults import Fault, FaultBook, FaultKind, faulty_rows, is_of_rows
from flows.replay.limits import Verdict, WeightLimiter
from flows.replay.twin import Reply

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from flows.replay.tape import Tape
    from flows.replay.twin import VenueTwin

_log = logging.getLogger(__name__)
_PIECES = 10


@dataclass
class ReplayStats:
    """What was asked and answered; keys of the counters are host and path, or the status."""

    requests: Counter[str] = field(default_factory=Counter)
    weights: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All requests to the venues."""
        return self.requests.total()

    def as_json(self) -> dict[str, Any]:
        """Return the counters as plain dictionaries."""
        return {
            "requests": dict(self.requests),
            "weights": dict(self.weights),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "faults": dict(self.faults),
        }


class ReplayExchange:
    """The replay exchange of one tape, an async context manager.

    Args:
        tape: What the venues answer with.
        clock: The venues' time; by default it stands one minute after the last close of
            the bars that are served.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        limits: Whether weights are enforced, or a limiter of one's own.
        faults: Faults armed from the start.

    Raises:
        TapeError: The tape has no bars of a venue that is served.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        clock: ReplayClock | None = None,
        port: int = 0,
        limits: bool | WeightLimiter = True,
        faults: FaultBook | None = None,
    ) -> None:
        self.tape = tape
        self.limiter = (
            limits if isinstance(limits, WeightLimiter) else WeightLimiter(enabled=limits)
        )
        self.clock = clock or _default_clock(tape)
        self.faults = faults or FaultBook()
        self.stats = ReplayStats()
        self.port = port
        twin = BinanceTwin(tape, self.clock, weight_limit=self.limiter.limit)
        self._twins: dict[str, VenueTwin] = dict.fromkeys(twin.hosts, twin)
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Where it listens; a request appends ``/HOST/PATH``."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        control.add_routes(app, self)
        app.router.add_route("*", "/{host}/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        _log.info("replay.listening", extra={"url": self.base_url, "origin": self.tape.origin})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host = request.match_info["host"]
        endpoint = f"/{request.match_info['path']}"
        twin = self._twins.get(host)
        if twin is None:
            known = ", ".join(self._twins)
            return web.Response(status=404, text=f"no twin of {host} here; there is {known}\n")
        name = f"{host}{endpoint}"
        weight = twin.weight(endpoint, request.query)
        verdict = self.limiter.charge(weight)
        self.stats.requests[name] += 1
        self.stats.weights[name] += weight
        if verdict.status != 200:
            reply = twin.refusal(verdict.status, verdict.retry_after_seconds)
            return await self._send(request, reply, verdict)
        reply = twin.answer(endpoint, request.query)
        fault = self.faults.strike(
            name, request.query.get("symbol"), self.stats.total, has_rows=bool(reply.rows)
        )
        if fault is None:
            return await self._send(request, reply, verdict)
        self.stats.faults[fault.kind.value] += 1
        _log.info("replay.fault", extra={"kind": fault.kind.value, "endpoint": name})
        if is_of_rows(fault.kind):
            asked = twin.page_request(endpoint, request.query)
            reply.rows = faulty_rows(fault, reply.rows or [], asked)
            return await self._send(request, reply, verdict)
        return await self._fail(request, twin, reply, verdict, fault)

    async def _fail(
        self, request: web.Request, twin: VenueTwin, reply: Reply, verdict: Verdict, fault: Fault
    ) -> web.StreamResponse:
        """Answer with a fault of status, body or transport."""
        match fault.kind:
            case FaultKind.STATUS if fault.status in (418, 429):
                reply = twin.refusal(fault.status, fault.retry_after_seconds)
            case FaultKind.STATUS:
                reply = twin.failure(fault.status)
            case FaultKind.HTML:
                reply = twin.failure(502)
                reply.status = 200
            case FaultKind.TRUNCATED:
                body = reply.body().decode()
                reply = Reply(text=body[: (len(body) + 1) // 2], headers=reply.headers)
            case FaultKind.EMPTY:
                reply = Reply()
            case FaultKind.EMPTY_LIST:
                reply = Reply(rows=[])
            case FaultKind.RESET:
                _reset(request)
            case FaultKind.HANG:
                await asyncio.sleep(fault.seconds)
            case FaultKind.SLOW_BODY:
                return await self._send(request, reply, verdict, seconds=fault.seconds)
        return await self._send(request, reply, verdict)

    async def _send(
        self, request: web.Request, reply: Reply, verdict: Verdict, seconds: float = 0.0
    ) -> web.StreamResponse:
        self.stats.statuses[reply.status] += 1
        used = str(verdict.used)
        headers = {"Content-Type": reply.content_type, "X-MBX-USED-WEIGHT": used}
        headers |= {"X-MBX-USED-WEIGHT-1M": used, **reply.headers}
        body = reply.body()
        if not seconds:
            return web.Response(status=reply.status, body=body, headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        size = -(-len(body) // _PIECES) or 1
        for start in range(0, len(body), size):
            await asyncio.sleep(seconds / _PIECES)
            await response.write(body[start : start + size])
        await response.write_eof()
        return response


def _default_clock(tape: Tape) -> ReplayClock:
    return ReplayClock.at_end_of(tape, Venue.BINANCE, MarketType.SPOT)


def _reset(request: web.Request) -> None:
    """Close the connection so that the client sees a reset, not an end."""
    transport = request.transport
    if transport is None:
        return
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
