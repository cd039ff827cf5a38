"""Runs: note in ops.runs that a run began and how it ended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import StorageError, TidemarkError
from contracts.response import canonical_json
from contracts.tables import RUNS
from lake.appends import append_missing
from lake.snapshots import code_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flows.work import Work


@asynccontextmanager
async def recorded_run(
    work: Work, command: str, arguments: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Record the start and the end of what runs inside; the yielded dictionary is its detail."""
    detail: dict[str, Any] = {}
    await _note(work, "started", command, arguments, None)
    try:
        yield detail
    except TidemarkError as error:
        await _note_failure(work, command, arguments, f"{error.code}: {error}")
        raise
    except (asyncio.CancelledError, KeyboardInterrupt):
        await asyncio.shield(_note(work, "interrupted", command, arguments, None))
        raise
    await _note(work, "succeeded", command, arguments, canonical_json(detail))


async def _note_failure(work: Work, command: str, arguments: Mapping[str, Any], why: str) -> None:
    """Note a failure, unless the store is what failed: the first error matters more."""
    try:
        await _note(work, "failed", command, arguments, why)
    except StorageError:
        work.progress.note("The failure could not be noted in ops.runs")


async def _note(
    work: Work, event: str, command: str, arguments: Mapping[str, Any], detail: str | None
) -> None:
    now = work.clock.storage()
    row = {
        "run_id": work.run_id,
        "month": f"{work.clock.known():%Y-%m}",
        "event": event,
        "command": command,
        "arguments": canonical_json(dict(arguments)),
        "detail": detail,
        "code_version": code_version(),
        "recorded_at": now,
        "known_from": work.clock.known(),
    }
    frame = pl.DataFrame([row], schema=RUNS.schema)
    await asyncio.to_thread(append_missing, work.table(RUNS.name), frame, app="runs")
