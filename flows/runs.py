"""Runs: note in ops.runs that a run began and how it ended.

While a run is under way its beginning stands as an object, ``runs/<run_id>.json``; when it ends,
its beginning and its end go to ops.runs in one commit. The beginning of a run that died is put
there by the next run that ends. So ops.runs tells of every run, at the cost of one commit.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import InvalidTimeError, StorageError, TidemarkError
from contracts.response import canonical_json
from contracts.tables import RUNS
from contracts.time import iso, parse_time
from lake.appends import append_missing
from lake.snapshots import code_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flows.work import Work
    from lake.store import Store

FOLDER = "runs"
Row = dict[str, Any]


@asynccontextmanager
async def recorded_run(
    work: Work, command: str, arguments: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Record the start and the end of what runs inside; the yielded dictionary is its detail."""
    detail: dict[str, Any] = {}
    started = _row(work, "started", command, arguments, None)
    await asyncio.to_thread(_put, work.store, started)
    try:
        yield detail
    except TidemarkError as error:
        await _note_failure(work, started, f"{error.code}: {error}")
        raise
    except (asyncio.CancelledError, KeyboardInterrupt):
        await asyncio.shield(_note(work, started, "interrupted", None))
        raise
    await _note(work, started, "succeeded", canonical_json(detail))


async def _note_failure(work: Work, started: Row, why: str) -> None:
    """Note a failure, unless the store is what failed: the first error matters more."""
    try:
        await _note(work, started, "failed", why)
    except StorageError:
        work.progress.note("The failure could not be noted in ops.runs")


async def _note(work: Work, started: Row, event: str, detail: str | None) -> None:
    ended = _row(work, event, started["command"], {}, detail)
    ended["arguments"] = started["arguments"]
    await asyncio.to_thread(_commit, work, started, ended)


def _commit(work: Work, started: Row, ended: Row) -> None:
    """Commit a run's beginning and end, and the beginnings of runs that left no end."""
    others = _left_behind(work.store, started["run_id"])
    rows = [started, ended, *others.values()]
    append_missing(work.table(RUNS.name), pl.DataFrame(rows, schema=RUNS.schema), app="runs")
    for path in (_path(started["run_id"]), *others):
        work.store.delete(path)


def _row(
    work: Work, event: str, command: str, arguments: Mapping[str, Any], detail: str | None
) -> Row:
    known = work.clock.known()
    return {
        "run_id": work.run_id,
        "month": f"{known:%Y-%m}",
        "event": event,
        "command": command,
        "arguments": canonical_json(dict(arguments)),
        "detail": detail,
        "code_version": code_version(),
        "recorded_at": work.clock.storage(),
        "known_from": known,
    }


def _path(run_id: str) -> str:
    return f"{FOLDER}/{run_id}.json"


def _put(store: Store, started: Row) -> None:
    told = {name: iso(value) if name in _TIMES else value for name, value in started.items()}
    store.put(_path(started["run_id"]), canonical_json(told).encode())


def _left_behind(store: Store, own: str) -> dict[str, Row]:
    """Return the beginnings of other runs by path: they died, or are still under way.

    The row of one that is under way is not doubled when it ends: its key stands then. What is
    no beginning of a run stays where it is.
    """
    found: dict[str, Row] = {}
    for path in store.sizes(FOLDER):
        content = store.get(path) if path != _path(own) else None
        with suppress(ValueError, KeyError, TypeError, InvalidTimeError):
            told = json.loads(content or b"")
            found[path] = told | {name: parse_time(told[name]) for name in _TIMES}
    return found


_TIMES = ("recorded_at", "known_from")
