"""A reverse proxy before an S3 server: counts requests, and lets them fail as networks do.

::

    gateway = FaultyGateway(ceph.url).start()
    gateway.plan(seed=7, rate=0.05)                       # faults drawn from a seed
    gateway.inject("reset_after", kind="commit")          # or one on purpose
    gateway.counts["PUT commit"], gateway.log, gateway.clear(), gateway.stop()

=============  =============================================================================
fault          what happens
=============  =============================================================================
error_before   503, and the server never hears of it
error_after    the server does it; the answer is 500
reset_before   the connection is reset, and the server never hears of it
reset_after    the server does it; the connection is reset
timeout        the server does it; no answer for ``hang`` seconds, then a reset
conflict       412 to a create, of which the server never hears
slow           a pause of ``pause`` seconds first
stale          a listing of before, where the same was listed before
expired        400 ExpiredToken, as when credentials end
=============  =============================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

BEFORE = ("error_before", "reset_before")
AFTER = ("error_after", "reset_after", "timeout")
INSTEAD = (*BEFORE, "conflict", "expired")
ANSWERS = {
    "error_before": (503, "ServiceUnavailable"),
    "error_after": (500, "InternalError"),
    "conflict": (412, "PreconditionFailed"),
    "expired": (400, "ExpiredToken"),
}
PLANNED = (*BEFORE, *AFTER, "conflict", "slow", "stale")
DROPPED = {"connection", "keep-alive", "transfer-encoding", "expect"}
FOLDERS = ("snapshots", "leases", "labels", "pins", "locks", "probes")
COMMIT = re.compile(r"/_delta_log/\d{20}\.json$")
LARGEST = 1 << 30
LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: its number, what it was, and what went wrong with it."""

    number: int
    method: str
    kind: str
    path: str
    fault: str | None


@dataclass
class Rule:
    """A fault on purpose: which requests it strikes, how many it lets by and how often."""

    fault: str
    method: str | None
    kind: str | None
    times: int
    skip: int

    def strikes(self, method: str, kind: str) -> bool:
        if self.method not in (None, method) or self.kind not in (None, kind) or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def kind_of(method: str, path: str, query: str) -> str:
    """Say what a request is about: list, commit, checkpoint, data, or the object's folder."""
    if path.endswith(".parquet") and "/_delta_log/" not in path:
        return "data"
    if "list-type=" in query or ("prefix=" in query and method == "GET"):
        return "list"
    if method == "POST" and "delete" in query:
        return "bulk-delete"
    if "/_delta_log/" in path:
        return "commit" if COMMIT.search(path) else "checkpoint"
    folders = path.split("/")
    return next((name for name in FOLDERS if name in folders), folders[-1])


def large_request(message, payload, protocol, writer, task) -> web.BaseRequest:
    """Return a request whose body may be larger than aiohttp's usual megabyte."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST)


@dataclass
class FaultyGateway:
    """The proxy, on a port of its own, in a thread of its own.

    Attributes:
        upstream: Where requests go.
        counts: Requests by method and kind, for instance ``GET data``.
        log: Every request in the order of arrival.
        hang: Seconds that a timeout hangs.
        pause: Seconds that a slow request pauses.
        strip: Headers that are taken away, in lower case; needs ``key``, to sign anew.
        key: Access key and secret.
    """

    upstream: str
    hang: float = 1.0
    pause: float = 0.1
    strip: tuple[str, ...] = ()
    key: tuple[str, str] | None = None
    url: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    log: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rules: list[Rule] = []
        self._random: random.Random | None = None
        self._rate = 0.0
        self._kinds: tuple[str, ...] = PLANNED
        self._listings: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self._ready = threading.Event()
        self._lock = threading.Lock()

    def plan(self, seed: int, rate: float, *, kinds: tuple[str, ...] = PLANNED) -> None:
        """Let a share of the requests fail; which and how is drawn from the seed."""
        self._random, self._rate, self._kinds = random.Random(seed), rate, kinds

    def inject(
        self, fault: str, *, method: str | None = None, kind: str | None = None,
        times: int = 1, skip: int = 0,
    ) -> None:  # fmt: skip
        """Let the next requests of that method and kind fail, after letting ``skip`` by."""
        with self._lock:
            self._rules.append(Rule(fault, method, kind, times, skip))

    def clear(self) -> None:
        """Forget faults, counts and log."""
        with self._lock:
            self._rules.clear()
            self._random = None
            self.counts.clear()
            self.log.clear()

    def start(self) -> Self:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(60)
        ) as self._session:
            server = web.Server(self._handle, request_factory=large_request)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        fault = self._fault(request)
        if fault == "slow":
            await asyncio.sleep(self.pause)
        found = self._listings.get(request.raw_path) if fault == "stale" else None
        try:
            if fault in INSTEAD:
                return self._failed(request, fault)
            status, headers, content = found or await self._forward(request, body)
            if fault == "timeout":
                await asyncio.sleep(self.hang)
            if fault in AFTER:
                return self._failed(request, fault)
        except (aiohttp.ClientError, OSError):
            return self._failed(request, "error_before")
        if request.method != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
        return web.Response(status=status, headers=headers, body=content or None)

    def _fault(self, request: web.BaseRequest) -> str | None:
        method, parts = request.method, urlsplit(request.raw_path)
        kind = kind_of(method, parts.path, parts.query)
        create = "If-None-Match" in request.headers
        with self._lock:
            fault = next((r.fault for r in self._rules if r.strikes(method, kind)), None)
            if fault is None and self._random is not None:
                drawn, chosen = self._random.random(), self._random.choice(self._kinds)
                fault = chosen if drawn < self._rate else None
            if (fault == "conflict" and not create) or (fault == "stale" and kind != "list"):
                fault = None
            self.counts[f"{method} {kind}"] += 1
            self.log.append(Seen(len(self.log), method, kind, parts.path, fault))
        return fault

    async def _forward(
        self, request: web.BaseRequest, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        dropped = DROPPED | {"content-length"}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in dropped}
        if self.strip:
            headers = {k: v for k, v in headers.items() if k.lower() not in self.strip}
            headers = self._signed(request, headers)
        url = URL(self.upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as told:
            content = await told.read()
            kept = {k: v for k, v in told.headers.items() if k.lower() not in DROPPED}
        found = told.status, kept, content
        if "list-type=" in request.raw_path:
            self._listings.setdefault(request.raw_path, found)
            self._loop.call_later(0.5, self._listings.__setitem__, request.raw_path, found)
        return found

    def _failed(self, request: web.BaseRequest, fault: str) -> web.Response:
        if fault in ANSWERS:
            status, code = ANSWERS[fault]
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>"
            return web.Response(status=status, body=body.encode(), content_type="application/xml")
        transport = request.transport
        if transport is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            transport.abort()
        return web.Response(status=500)

    def _signed(self, request: web.BaseRequest, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers with a signature that fits them (AWS Signature Version 4)."""
        assert self.key is not None
        access, secret = self.key
        told = {k.lower(): v for k, v in headers.items() if k.lower() != "authorization"}
        moment = told["x-amz-date"]
        names = sorted(k for k in told if k == "host" or k.startswith("x-amz-"))
        parts = urlsplit(request.raw_path)
        query = "&".join(
            sorted(each if "=" in each else f"{each}=" for each in parts.query.split("&") if each)
        )
        canonical = "\n".join(
            [request.method, parts.path, query, *(f"{k}:{told[k].strip()}" for k in names), "",
             ";".join(names), told["x-amz-content-sha256"]]
        )  # fmt: skip
        scope = f"{moment[:8]}/us-east-1/s3/aws4_request"
        text = (
            f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        )
        key = f"AWS4{secret}".encode()
        for each in scope.split("/"):
            key = hmac.digest(key, each.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        told["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={access}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return told
