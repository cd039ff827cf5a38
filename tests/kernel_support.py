"""What the tests of the kernel share: a lake in a folder, generated frames, comparisons."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import Phase

from contracts.names import Timeframe, Venue
from contracts.response import Response
from contracts.tables import AUDITS, BAR_REVISIONS, BARS, LEDGER, QUARANTINE, RESPONSES, State
from contracts.time import Span, SteppedClock
from lake.appends import append_missing
from lake.lakehouse import Lake, open_lake
from lake.landing import land
from lake.ledger import Observation, fold, observations_frame, read_observations, record, runs
from lake.root import init_lake
from lake.scan import read_files
from lake.snapshots import create_snapshot
from lake.sources import Tables
from lake.store import Store
from lake.versioned import Published, publish_bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pytest

    from contracts.spec import TableSpec
    from lake.appends import Appended
    from lake.manifest import Manifest

BTC = "BTC-USDT-SPOT.BINANCE"
ETH = "ETH-USDT-SPOT.BINANCE"
START = datetime(2026, 3, 24, tzinfo=UTC)
KNOWN = datetime(2026, 4, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
US = timedelta(microseconds=1)
# Examples that write tables are too slow to shrink.
GENERATED = (Phase.explicit, Phase.generate)
BAR_KEY = ["instrument_id", "timeframe", "open_time"]


@dataclass(frozen=True, slots=True)
class Row:
    """One bar as a test states it: when, at which close, and what else is worth saying."""

    minute: int
    close: float
    trades: int | None = 1
    instrument: str = BTC
    source: str = "rest"


def bars_of(rows: Iterable[Row], *, timeframe: str = "1m", start: datetime = START) -> pl.DataFrame:
    """Return bars without known_from, as a publish takes them."""
    step = Timeframe.parse(timeframe).duration
    columns = BARS.schema.names()[:-1]
    told = [_bar(row, start + row.minute * step, timeframe, step) for row in rows]
    schema = {name: BARS.schema[name] for name in columns}
    return pl.DataFrame(told, schema=schema, orient="row")


def _bar(row: Row, opens: datetime, timeframe: str, step: timedelta) -> tuple[Any, ...]:
    venue = row.instrument.rpartition(".")[2].split("~")[0].lower()
    volume = 10.0 + row.minute
    return (
        row.instrument,
        venue,
        timeframe,
        opens.year,
        opens,
        100.0,
        max(row.close, 100.0) + 1,
        min(row.close, 100.0) - 1,
        row.close,
        volume,
        volume * 100,
        row.trades,
        None,
        None,
        row.source,
        opens + step + timedelta(seconds=5),
    )


def series(
    minutes: Iterable[int], *, close: float = 100.5, instrument: str = BTC, source: str = "rest"
) -> list[Row]:
    """Return one row a minute."""
    return [Row(minute, close + minute / 100, minute, instrument, source) for minute in minutes]


def response_of(body: bytes, *, at: datetime = KNOWN, limit: int = 1000) -> Response:
    """Return what Binance answered for klines."""
    return Response(
        venue=Venue.BINANCE,
        endpoint="GET /api/v3/klines",
        params={"symbol": "BTCUSDT", "limit": limit},
        requested_at=at - timedelta(seconds=1),
        received_at=at,
        status=200,
        content_type="application/json",
        body=body,
    )


def quarantine_of(minutes: Sequence[int], *, known: datetime = KNOWN) -> pl.DataFrame:
    """Return refused bars."""
    rows = [
        (
            f"{minute:064x}",
            BARS.name,
            "binance",
            BTC,
            "1m",
            START + minute * MINUTE,
            ["high_below_low", "überlang"],
            f'{{"minute":{minute}}}',
            "rest",
            "run",
            known,
        )
        for minute in minutes
    ]
    return pl.DataFrame(rows, schema=QUARANTINE.schema, orient="row")


def audits_of(names: Sequence[str], *, known: datetime = KNOWN) -> pl.DataFrame:
    """Return audits of one batch."""
    end = START + timedelta(hours=1)
    rows = [
        (f"{index:064x}", "run", BARS.name, "binance", BTC, "1m", START, end, name, False,
         "passed", 60, 0, None, known)
        for index, name in enumerate(names)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=AUDITS.schema, orient="row")


class Kernel:
    """A lake in a folder or a bucket, whose known clock a test moves."""

    def __init__(self, root: Path | str, *, known: datetime = KNOWN, origin: str = "live") -> None:
        self.root: Any = root
        self.clock = SteppedClock(known)
        self.store = Store(root, fsync=False)
        init_lake(self.store, origin=origin)
        self.tables = Tables(self.store, self.clock)

    def publish(self, rows: Iterable[Row], *, timeframe: str = "1m") -> Published:
        return self.publish_frame(bars_of(rows, timeframe=timeframe))

    def publish_frame(self, candidates: pl.DataFrame) -> Published:
        return publish_bars(
            self.tables[BARS.name],
            self.tables[BAR_REVISIONS.name],
            candidates,
            known=self.clock.known(),
        )

    def observe(
        self,
        first: int,
        end: int,
        state: State = State.PRESENT,
        *,
        instrument: str = BTC,
        timeframe: str = "1m",
        evidence: str | None = None,
    ) -> int:
        """Record what is known of minutes ``[first, end)``."""
        span = Span(START + first * MINUTE, START + end * MINUTE)
        frame = observations_frame(
            [Observation(span, state, evidence)],
            instrument_id=instrument,
            venue=instrument.rpartition(".")[2].lower(),
            timeframe=timeframe,
            source="rest",
            known_from=self.clock.known(),
        )
        return record(self.tables[LEDGER.name], frame, known=self.clock.known())

    def land(self, *responses: Response, run_id: str = "run") -> Appended:
        return land(self.tables[RESPONSES.name], responses, run_id=run_id)

    def quarantine(self, frame: pl.DataFrame) -> Appended:
        return append_missing(self.tables[QUARANTINE.name], frame, app="quarantine/binance")

    def audit(self, frame: pl.DataFrame) -> Appended:
        return append_missing(self.tables[AUDITS.name], frame, app="audits/binance")

    def snapshot(
        self, *, label: str | None = None, members: Sequence[str] | None = None
    ) -> Manifest:
        return create_snapshot(self.tables, label=label, members=members)

    def step(self, **duration: float) -> datetime:
        """Move the known clock and return its time."""
        self.clock.step(timedelta(**duration))
        return self.clock.known()

    def lake(self, **options: Any) -> Lake:
        return open_lake(self.root, clock=self.clock, **options)

    def versions(self) -> dict[str, int]:
        """Return the version of every table, -1 for one that was never created."""
        return {name: view.version for name, view in self.tables.views(list(ALL)).items()}

    def rows(self, spec: TableSpec) -> pl.DataFrame:
        """Return all rows of a table in the order of its key."""
        view = self.tables[spec.name].head()
        return read_files(self.store, spec, view.files).sort(spec.key)

    def file_of(self, spec: TableSpec, index: int = 0) -> Path:
        """Return one data file of a table."""
        entry = self.tables[spec.name].head().files[index]
        return self.root / spec.path / entry.path

    def log_of(self, spec: TableSpec, version: int) -> Path:
        """Return one commit of a table's Delta log."""
        return self.root / spec.path / "_delta_log" / f"{version:020d}.json"

    def copy(self, root: Path | str) -> Kernel:
        """Return the lake's copy at another root, with a clock of its own."""
        copy_lake(self.root, root)
        return Kernel(root, known=self.clock.known())


ALL = (
    RESPONSES.name,
    QUARANTINE.name,
    AUDITS.name,
    BAR_REVISIONS.name,
    BARS.name,
    LEDGER.name,
)


def copy_lake(source: Path | str, target: Path | str) -> None:
    """Copy a lake, object by object where one of both is a bucket."""
    origin, copy = Store(source), Store(target, fsync=False)
    if origin.is_local and copy.is_local:
        shutil.copytree(origin.path, copy.path)
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: copy.put(path, origin.get(path) or b""), origin.sizes("")))


def content(kernel: Kernel) -> Mapping[str, Any]:
    """Return what readers see of a lake; leftovers that readers drop are not part of it."""
    ledger = read_observations(kernel.store, kernel.tables[LEDGER.name].head())
    versions = kernel.lake().bar_history("*", timeframe="1m").collect()
    return {
        "responses": kernel.rows(RESPONSES).rows(),
        "quarantine": kernel.rows(QUARANTINE).rows(),
        "bars": kernel.rows(BARS).rows(),
        "versions": versions.rows(),
        "ledger": runs(fold(ledger)).rows(),
    }


def assert_spans_sound(history: pl.DataFrame) -> None:
    """Check that the versions of each bar follow one another without overlap or hole."""
    ordered = history.sort(*BAR_KEY, "known_from")
    after = pl.col("known_from").shift(-1).over(BAR_KEY)
    assert ordered.filter(pl.col("known_to").ne_missing(after)).is_empty()
    assert ordered.filter(pl.col("known_to") <= pl.col("known_from")).is_empty()


def seal_early(
    monkeypatch: pytest.MonkeyPatch, rows: int, *, fan_in: int = 8, series: int = 0
) -> None:
    """Seal files from ``rows`` rows on, and merge them as soon as ``fan_in`` are alike.

    Instruments with ``series`` rows in one write get files of their own; 0: none does.
    """
    monkeypatch.setattr("lake.layout.open_rows", lambda _: rows)
    monkeypatch.setattr("lake.layout.series_rows", lambda spec: series if spec.series_rows else 0)
    monkeypatch.setattr("lake.layout.FAN_IN", fan_in)
