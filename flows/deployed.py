"""What Prefect runs: backfill, update, snapshot and maintain as flows that can be deployed.

Each flow is one task around the plain function of the same name. The flow holds the venue's
slot, the task is what is retried, and what it did is an artifact. Parameters are plain JSON.
Only this module imports Prefect.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.asyncio import concurrency
from prefect.runtime import task_run as this_task_run
from prefect.tasks import exponential_backoff

from contracts.errors import RequestError, TidemarkError
from contracts.names import Timeframe, Venue
from contracts.time import Span, SystemClock, parse_time
from flows.backfill import Access, BackfillRequest
from flows.backfill import backfill as run_backfill
from flows.backfill import update as run_update
from flows.deployed_text import failure_text, maintain_text, report_text, snapshot_text
from flows.maintain import MaintainRequest
from flows.maintain import maintain as run_maintain
from flows.snapshot import snapshot as run_snapshot
from flows.work import Progress, Work, open_work, standing_clock
from lake.root import LIVE, read_lake
from lake.settings import read_settings
from lake.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from prefect.client.schemas.objects import State, TaskRun

    from contracts.time import Clock
    from flows.ingest import IngestReport

_SLOT_SECONDS = 60.0


def is_retryable(_ran: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether what failed may succeed later: only our own errors know."""
    return isinstance(state.data, TidemarkError) and state.data.retryable


RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(15),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_retryable,
    "cache_policy": NO_CACHE,
}


class LoggedProgress(Progress):
    """Tells the log of the Prefect run how it goes."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._pages: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def plan(self, stream: str, pages: int) -> None:
        """Expect so many pages of a stream."""
        self._pages[stream] = pages
        self._log.info("%s: %d pages to ask for", stream, pages)

    def advance(self, stream: str, pages: int, rows: int) -> None:
        """Count pages that are stored for good, and the rows they held."""
        done = self._done[stream] = self._done.get(stream, 0) + pages
        expected = self._pages.get(stream, done)
        self._log.info("%s: %d of %d pages stored, %d bars", stream, done, expected, rows)

    def waiting(self, reason: str, seconds: float) -> None:
        """Say what the run waits for."""
        self._log.warning("waits %.1f s: %s", seconds, reason)

    def note(self, text: str) -> None:
        """Say something that a person should read."""
        self._log.warning(text)


@flow(name="backfill", flow_run_name="backfill {venue} {start}")
async def backfill(
    *,
    venue: str,
    symbols: list[str],
    timeframes: list[str],
    start: str,
    end: str | None = None,
    root: str | None = None,
    recheck: bool = False,
    replay: str | None = None,
    replay_now: str | None = None,
) -> dict[str, int]:
    """Bring a span of some streams to what the venue has; return the counts.

    Args:
        venue: For instance binance.
        symbols: Canonical ids or ccxt symbols.
        timeframes: For instance 1m and 1h.
        start: First open_time, UTC.
        end: Open_time to stop before, UTC; null is up to now.
        root: The lake; null is what LAKE_ROOT says.
        recheck: Ask for everything again, stored or not.
        replay: A tape's folder, or ``generated``; null asks the venue.
        replay_now: The replayed time, UTC; null is the end of the tape.
    """
    async with _venue_slot(Venue.parse(venue)):
        return await _backfill(
            venue=venue,
            symbols=symbols,
            timeframes=timeframes,
            start=start,
            end=end,
            root=root,
            recheck=recheck,
            replay=replay,
            replay_now=replay_now,
        )


@task(name="backfill", **RETRIES)
async def _backfill(
    *,
    venue: str,
    symbols: list[str],
    timeframes: list[str],
    start: str,
    end: str | None,
    root: str | None,
    recheck: bool,
    replay: str | None,
    replay_now: str | None,
) -> dict[str, int]:
    async with _opened(root, venue, replay, replay_now) as (work, access):
        until = work.clock.known() if end is None else parse_time(end, name="end")
        request = BackfillRequest(
            access,
            tuple(symbols),
            tuple(Timeframe.parse(timeframe) for timeframe in timeframes),
            Span(parse_time(start, name="start"), until),
            recheck=recheck,
        )
        return await _ingested(work, "backfill", access, lambda: run_backfill(work, request))


@flow(name="update", flow_run_name="update {venue}")
async def update(
    *,
    venue: str,
    root: str | None = None,
    recheck_hours: float | None = None,
    replay: str | None = None,
    replay_now: str | None = None,
) -> dict[str, int]:
    """Bring every stream of a venue that the lake knows up to now; return the counts.

    Args:
        venue: For instance binance.
        root: The lake; null is what LAKE_ROOT says.
        recheck_hours: Ask again for so much of the newest past, stored or not.
        replay: A tape's folder, or ``generated``; null asks the venue.
        replay_now: The replayed time, UTC; null is the end of the tape.
    """
    async with _venue_slot(Venue.parse(venue)):
        return await _update(
            venue=venue,
            root=root,
            recheck_hours=recheck_hours,
            replay=replay,
            replay_now=replay_now,
        )


@task(name="update", **RETRIES)
async def _update(
    *,
    venue: str,
    root: str | None,
    recheck_hours: float | None,
    replay: str | None,
    replay_now: str | None,
) -> dict[str, int]:
    recheck = None if recheck_hours is None else timedelta(hours=recheck_hours)
    async with _opened(root, venue, replay, replay_now, may_create=False) as (work, access):
        return await _ingested(
            work, "update", access, lambda: run_update(work, access, recheck=recheck)
        )


@flow(name="snapshot")
async def snapshot(*, root: str | None = None, label: str | None = None) -> str:
    """Pin the lake as it stands; return the snapshot_id.

    Args:
        root: The lake; null is what LAKE_ROOT says.
        label: A label that moves to the snapshot.
    """
    return await _snapshot(root=root, label=label)


@task(name="snapshot", **RETRIES)
async def _snapshot(*, root: str | None, label: str | None) -> str:
    work = await _work(root, None)
    manifest = await run_snapshot(work, label=label)
    text = await asyncio.to_thread(snapshot_text, manifest, label)
    await acreate_markdown_artifact(text, key="snapshot", description=manifest.snapshot_id)
    return manifest.snapshot_id


@flow(name="maintain")
async def maintain(*, root: str | None = None, apply: bool = True) -> dict[str, int]:
    """Compact, write checkpoints, delete what nobody needs; return files and bytes.

    Args:
        root: The lake; null is what LAKE_ROOT says.
        apply: Do it; false says in the artifact what would be done.
    """
    return await _maintain(root=root, apply=apply)


@task(name="maintain", **RETRIES)
async def _maintain(*, root: str | None, apply: bool) -> dict[str, int]:
    store = Store(root or read_settings().root)
    clock = await asyncio.to_thread(standing_clock, store)
    work = await _work(root, None, clock=clock)
    report = await run_maintain(work, MaintainRequest(apply=apply))
    await acreate_markdown_artifact(maintain_text(report), key="maintain", description=work.run_id)
    return report.counts()


@asynccontextmanager
async def _venue_slot(venue: Venue) -> AsyncIterator[None]:
    """Wait until no other run of any deployment asks this venue.

    The slot is a lease: a killed run frees it within ``_SLOT_SECONDS``. A run whose lease
    cannot be renewed goes on, for two writers cannot harm the lake, only each other's pace.
    """
    name = f"tidemark-{venue.value}"
    get_run_logger().info("takes the slot %s, once it is free", name)
    async with get_client() as client:
        await client.upsert_global_concurrency_limit_by_name(name, 1)
    async with concurrency(
        name,
        strict=True,
        lease_duration=_SLOT_SECONDS,
        raise_on_lease_renewal_failure=False,
    ):
        yield


@asynccontextmanager
async def _opened(
    root: str | None,
    venue: str,
    replay: str | None,
    replay_now: str | None,
    *,
    may_create: bool = True,
) -> AsyncIterator[tuple[Work, Access]]:
    """Open the lake and the way to the venue, or to a replay exchange inside this process."""
    at = Venue.parse(venue)
    if replay is None and replay_now is not None:
        raise RequestError(
            "replay_now sets the clock of a replay, and none is asked",
            remedy="Name a tape with replay",
        )
    if not may_create:
        read_lake(Store(root or read_settings().root))
    if replay is None:
        yield await _work(root, LIVE), Access(at)
        return
    from flows.replay.process import open_tape
    from flows.replay.server import ReplayExchange

    tape = await asyncio.to_thread(open_tape, replay)
    async with ReplayExchange(tape) as exchange:
        if replay_now is not None:
            exchange.clock.set(parse_time(replay_now, name="replay_now"))
        work = await _work(root, tape.origin, clock=exchange.clock)
        yield work, Access(at, base_url=exchange.base_url)


async def _work(root: str | None, origin: str | None, *, clock: Clock | None = None) -> Work:
    settings = read_settings()
    return await asyncio.to_thread(
        open_work,
        root or settings.root,
        clock=clock or SystemClock(),
        origin=origin,
        settings=settings,
        progress=LoggedProgress(),
    )


async def _ingested(
    work: Work, command: str, access: Access, run: Callable[[], Awaitable[IngestReport]]
) -> dict[str, int]:
    """Run, write the artifact, and raise the gravest error that ended a stream."""
    key = f"{command}-{access.venue.value}"
    attempt = this_task_run.run_count
    try:
        report = await run()
    except TidemarkError as error:
        await acreate_markdown_artifact(failure_text(work, error, attempt=attempt), key=key)
        raise
    text = await asyncio.to_thread(report_text, work, report, attempt=attempt)
    await acreate_markdown_artifact(text, key=key, description=work.run_id)
    if report.failures:
        raise max(report.failures, key=lambda failure: failure.exit_code)
    return report.counts()
