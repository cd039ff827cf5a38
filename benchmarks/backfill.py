"""A backfill from a replay exchange beside a bare client that asks for the same pages.

The exchange runs in a process of its own and answers both sides alike: the span is longer
than what it keeps rendered, so it renders pages for whoever asks. Both sides run several
times, in turn.

With ``--slow`` a second exchange enforces Binance's limits, and the weight that a backfill
uses in two minutes is held against what is allowed in them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.data import ONE_MINUTE, SYMBOLS, span_of_days, write_tape
from benchmarks.lakes import work_at
from benchmarks.measure import Result, Target, alternate_async, rate, run_async, timed_async
from contracts.names import Venue
from contracts.time import SteppedClock, to_millis
from flows.backfill import Access, BackfillRequest, backfill
from flows.replay.process import run_in_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.measure import Options, Took
    from contracts.time import Span

END = datetime(2026, 6, 1, tzinfo=UTC)
PAGE, CONCURRENCY = 1000, 8
WEIGHT, WINDOW_SECONDS, WINDOWS = 6000, 60, 2
KLINES = "api.binance.com/api/v3/klines"


def run(options: Options) -> list[Result]:
    days = options.pick(tiny=2, default=1_000)
    lines = [_unlimited(options, span_of_days(END, days))]
    if options.size == "slow":
        lines.append(_limited(options))
    return lines


def request(base_url: str, symbols: Sequence[str], span: Span, *, limit: bool) -> BackfillRequest:
    """Return the backfill of 1m bars of some symbols from an exchange."""
    access = Access(Venue.BINANCE, base_url, limit)
    return BackfillRequest(access, tuple(symbols), (ONE_MINUTE,), span)


def _unlimited(options: Options, span: Span) -> Result:
    tape = write_tape(options.folder / "tape", SYMBOLS[:1], span)
    bars = int(span.duration / timedelta(minutes=1))
    rounds = options.pick(tiny=1, default=3, slow=5)
    roots = (options.folder / f"lake-{number}" for number in itertools.count())

    async def measure(base_url: str) -> dict[str, list[Took]]:
        await _bare(base_url, span)
        return await alternate_async(
            rounds,
            {
                "tidemark": lambda: _backfilled(next(roots), base_url, span, bars),
                "floor": lambda: timed_async(lambda: _bare(base_url, span)),
            },
        )

    with run_in_process(tape, limits=False) as base_url:
        took = run_async(measure(base_url))
    what = f"{-(-bars // PAGE)} pages of 1m bars, no limits"
    return rate(what, took["tidemark"], took["floor"], amount=bars, unit="bars", target=0.4)


async def _backfilled(root: Path, base_url: str, span: Span, bars: int) -> Took:
    asked = request(base_url, SYMBOLS[:1], span, limit=False)
    new = 0

    async def whole() -> None:
        nonlocal new
        work = work_at(root, SteppedClock(END + timedelta(minutes=1)))
        report = await backfill(work, asked)
        new = report.new
        for failure in report.failures:
            raise failure

    took = await timed_async(whole)
    if new != bars:
        raise AssertionError(f"the backfill stored {new} of {bars} bars")
    shutil.rmtree(root)
    return took


async def _bare(base_url: str, span: Span) -> None:
    """Ask for all pages, eight at once, and parse each."""
    pages = iter(list(span.split(PAGE * ONE_MINUTE.duration)))
    symbol = SYMBOLS[0].replace("/", "")
    rows = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal rows
        for page in pages:
            params: dict[str, Any] = {
                "symbol": symbol,
                "interval": "1m",
                "startTime": to_millis(page.start),
                "endTime": to_millis(page.end) - 1,
                "limit": PAGE,
            }
            async with session.get(f"{base_url}/{KLINES}", params=params) as response:
                body = await response.read()
            rows += len(json.loads(body))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
    if rows != span.duration // ONE_MINUTE.duration:
        raise AssertionError(f"the bare client got {rows} rows")


def _limited(options: Options) -> Result:
    """Let a backfill that is too long for it run for two windows, and read the weight used."""
    span = span_of_days(END, 4 * 365)
    symbols = SYMBOLS[:4]
    tape = write_tape(options.folder / "limited-tape", symbols, span)
    with run_in_process(tape, limits=True) as base_url:
        asked = request(base_url, symbols, span, limit=True)
        marks = run_async(_weights(options.folder / "limited-lake", asked, base_url))
        told = stats(base_url)
    refused = sum(count for status, count in told["statuses"].items() if status in ("429", "418"))
    used, allowed = marks[-1], WEIGHT * WINDOWS
    share = 0.0 if refused else used / allowed
    return Result(
        f"weight used in {WINDOWS} minutes of Binance's limits",
        f"{used} weight, {refused} refusals",
        f"{allowed} weight",
        share,
        None,
        None,
        Target(0.95, at_least=True),
        {"weight_used_after_each_window": marks, "statuses": told["statuses"]},
        "the floor is what is allowed; any 429 counts as a ratio of 0",
    )


async def _weights(root: Path, asked: BackfillRequest, base_url: str) -> list[int]:
    """Return the weight used since the first request, at the end of each window."""
    work = work_at(root, SteppedClock(END + timedelta(minutes=1)))
    running = asyncio.create_task(backfill(work, asked))
    loop = asyncio.get_running_loop()
    while not await asyncio.to_thread(weight, base_url):
        await asyncio.wait([running], timeout=0.005)
    begun, marks = loop.time(), []
    for window in range(1, WINDOWS + 1):
        until = begun + window * WINDOW_SECONDS
        await asyncio.wait([running], timeout=until - loop.time())
        if running.done():
            raise AssertionError(f"the backfill ended too early: {running.result().counts()}")
        marks.append(await asyncio.to_thread(weight, base_url))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return marks


def stats(base_url: str) -> dict[str, Any]:
    """Return what an exchange has counted."""
    with urllib.request.urlopen(f"{base_url}/_replay/stats") as answer:
        told: dict[str, Any] = json.loads(answer.read())
    return told


def weight(base_url: str) -> int:
    """Return the weight of all requests so far."""
    return sum(stats(base_url)["weights"].values())
