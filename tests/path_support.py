"""What the tests of the path share: a run against a twin, and what a lake then holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

import lake
from contracts.names import Timeframe, Venue
from contracts.tables import BARS, LEDGER, QUARANTINE, RESPONSES
from contracts.time import Span
from flows.backfill import Access, BackfillRequest, backfill, update
from flows.work import Progress, open_work
from lake.ledger import fold, read_observations, runs
from lake.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from flows.ingest import IngestReport
    from flows.replay.server import ReplayExchange

BTC = "BTC-USDT-SPOT.BINANCE"
SILENT_TABLES = ("bronze.responses", "silver.bars", "ops.ledger", "ops.quarantine")


class Notes(Progress):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waits: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def waiting(self, reason: str, seconds: float) -> None:
        self.waits.append(reason)


def request_of(
    twin: ReplayExchange | str,
    start: str,
    end: str,
    *,
    symbols: tuple[str, ...] = ("BTC/USDT",),
    timeframes: tuple[str, ...] = ("1m",),
    **more: bool,
) -> BackfillRequest:
    base_url = twin if isinstance(twin, str) else twin.base_url
    parsed = tuple(Timeframe.parse(code) for code in timeframes)
    access = Access(Venue.BINANCE, base_url, limit=False)
    return BackfillRequest(access, symbols, parsed, Span.parse(start, end), **more)


async def run_backfill(
    root: Path,
    twin: ReplayExchange,
    start: str,
    end: str,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **more,
) -> IngestReport:
    work = open_work(
        str(root),
        clock=twin.clock,
        origin=twin.tape.origin,
        settings=settings or Settings(fsync=False),
        progress=progress,
    )
    return await backfill(work, request_of(twin, start, end, **more))


async def run_update(root: Path, twin: ReplayExchange, **more) -> IngestReport:
    settings = Settings(fsync=False)
    work = open_work(str(root), clock=twin.clock, origin=twin.tape.origin, settings=settings)
    return await update(work, Access(Venue.BINANCE, twin.base_url, limit=False), **more)


def versions(root: Path, names: tuple[str, ...] = SILENT_TABLES) -> dict[str, int]:
    work = open_work(str(root), clock=lake.SystemClock(), origin=None)
    return {name: work.tables[name].head().version for name in names}


def contents(root: Path) -> dict[str, list[tuple]]:
    """Return silver, what the ledger amounts to, and the quarantine, without run ids."""
    lk = lake.open(root)
    work = open_work(str(root), clock=lake.SystemClock(), origin=None)
    ledger = read_observations(work.store, work.tables[LEDGER.name].head())
    told = runs(fold(ledger)).drop("evidence", "known_from", "source")
    bars = lk.scan(BARS.name).sort("instrument_id", "timeframe", "open_time").collect()
    history = [
        lk.bar_history("*", timeframe=code).collect().rows()
        for code in sorted(bars["timeframe"].unique())
    ]
    refused = lk.scan(QUARANTINE.name).collect().drop("run_id").sort("quarantine_id")
    return {
        "bars": bars.rows(),
        "history": [row for rows in history for row in rows],
        "ledger": told.rows(),
        "quarantine": refused.rows(),
    }


def states(root: Path, start: str, end: str, *, timeframe: str = "1m", instrument: str = BTC):
    """Return the ledger of a stream as (state, minutes) in order."""
    told = lake.open(root).ledger(instrument, timeframe=timeframe, start=start, end=end)
    minutes = (pl.col("span_end") - pl.col("span_start")).dt.total_minutes()
    return told.select("state", minutes.alias("minutes")).rows()


def landed(root: Path) -> pl.DataFrame:
    return lake.open(root).scan(RESPONSES.name).collect()
