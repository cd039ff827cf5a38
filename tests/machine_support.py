"""The model of a lake that the state machine and the soak run beside a real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kernel_support import BTC, ETH, MINUTE, START, US, Kernel, Row, quarantine_of

from contracts.errors import BeforeFirstKnowledgeError, StorageError, UnknownStreamError
from contracts.tables import DELETIONS, QUARANTINE, TABLES
from lake.compact import closed_partitions, compact_partition
from lake.manifest import load_manifest
from lake.pins import confirm_unpin, is_pinned, pinned_ids, request_unpin
from lake.vacuum import Rules, sweep

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from lake.lakehouse import Lake
    from lake.tables import Table

NAMES = (BTC, ETH)
Key = tuple[str, int]


@dataclass
class Model:
    """What a lake must hold: versions of each bar, minutes known present, refused minutes."""

    versions: dict[Key, list[tuple[datetime, float]]] = field(default_factory=dict)
    present: set[Key] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def publish(self, rows: list[Row], known: datetime) -> None:
        """Take a batch in, as one publish dates it."""
        changed = [row for row in rows if self.close((row.instrument, row.minute)) != row.close]
        replaced = [
            self.versions[row.instrument, row.minute][-1][0]
            for row in changed
            if (row.instrument, row.minute) in self.versions
        ]
        at = max([known, *(moment + US for moment in replaced)])
        for row in changed:
            self.versions.setdefault((row.instrument, row.minute), []).append((at, row.close))

    def close(self, key: Key) -> float | None:
        """Return the current close of a bar."""
        told = self.versions.get(key)
        return told[-1][1] if told else None

    def at(self, moment: datetime | None) -> dict[Key, tuple[datetime, float]]:
        """Return the versions that were known at a time."""
        seen = {
            key: [each for each in told if moment is None or each[0] <= moment]
            for key, told in self.versions.items()
        }
        return {key: told[-1] for key, told in seen.items() if told}

    def moments(self) -> list[datetime]:
        """Return the times at which something became known."""
        return sorted({at for told in self.versions.values() for at, _ in told})


def read(lk: Lake, moment: datetime | None = None) -> dict[Key, tuple[datetime, float]]:
    """Return the bars of a lake as the model states them; each must come once, in order."""
    found: dict[Key, tuple[datetime, float]] = {}
    for name in NAMES:
        try:
            bars = lk.bars(name, timeframe="1m", known_at=moment).collect()
        except (UnknownStreamError, BeforeFirstKnowledgeError):
            continue
        assert bars["open_time"].is_sorted()
        assert bars["open_time"].is_unique().all()
        for opened, known, close in bars.select("open_time", "known_from", "close").iter_rows():
            found[name, (opened - START) // MINUTE] = (known, close)
    return found


def assert_is(kernel: Kernel, model: Model, *, moments: int = 3) -> None:
    """Check that the heads of a lake hold what the model says, now and as known before."""
    lk = kernel.lake()
    assert read(lk) == model.at(None)
    for moment in model.moments()[-moments:]:
        assert read(lk, moment) == model.at(moment)
    history = {
        (name, (opened - START) // MINUTE, known, close)
        for name in NAMES
        if any(key[0] == name for key in model.versions)
        for opened, known, close in lk.bar_history(name, timeframe="1m")
        .select("open_time", "known_from", "close")
        .collect()
        .iter_rows()
    }
    expected = {
        (*key, known, close) for key, told in model.versions.items() for known, close in told
    }
    assert history == expected
    assert present(lk) == model.present
    quarantined = kernel.rows(QUARANTINE)
    assert {(at - START) // MINUTE for at in quarantined["event_time"]} == model.refused


def present(lk: Lake) -> set[Key]:
    """Return the minutes that the ledger claims."""
    claims = lk.ledger().filter(state="present")
    return {
        (name, minute)
        for name, start, end in claims.select("instrument_id", "span_start", "span_end").iter_rows()
        for minute in range((start - START) // MINUTE, (end - START) // MINUTE)
    }


def frozen(lk: Lake) -> list[Any]:
    """Return everything that a pinned lake shows, rows and order and types."""
    shown: list[Any] = []
    for name in NAMES:
        try:
            bars = lk.bars(name, timeframe="1m").collect()
            history = lk.bar_history(name, timeframe="1m").collect()
        except UnknownStreamError:
            continue
        shown += [bars.schema, bars.rows(), history.schema, history.rows()]
        for moment in sorted(set(history["known_from"]))[-2:]:
            shown.append(lk.bars(name, timeframe="1m", known_at=moment).collect().rows())
    shown.append(lk.ledger().rows())
    for table in lk.manifest.tables:  # type: ignore[union-attr]
        rows = lk.scan(table).collect()
        shown.append((table, rows.schema, rows.rows()))
    return shown


def rows_of(name: str, minutes: range, close: float) -> list[Row]:
    """Return bars of one instrument."""
    return [Row(minute, close + minute / 8, 1, name) for minute in minutes]


def refused_frame(minutes: list[int], known: datetime) -> pl.DataFrame:
    """Return rows for the quarantine."""
    return quarantine_of(minutes, known=known)


def readable(kernel: Kernel) -> bool:
    """Tell whether the heads can be read at all; a reader never meets another kind of error."""
    try:
        for name in NAMES:
            try:
                kernel.lake().bars(name, timeframe="1m").collect()
            except UnknownStreamError:
                continue
    except StorageError:
        return False
    return True


def standing(kernel: Kernel) -> list[Table]:
    """Return the tables that have been created."""
    every = (kernel.tables[name] for name in TABLES)
    return [table for table in every if table.head().version >= 0]


def compact_all(kernel: Kernel) -> None:
    """Compact all partitions, as if their year, month and day were over."""
    for table in standing(kernel):
        for files in closed_partitions(table.head(), kernel.clock.known() + NEXT_YEAR):
            compact_partition(table, files[0].partition)


def vacuum_all(kernel: Kernel, *, grace: timedelta = timedelta(0)) -> None:
    """Delete what nothing reaches; a lease of a process that died is dead."""
    rules = Rules(grace, lease_grace=timedelta(0))
    sweep(kernel.tables, rules, run_id="machine")


def unpin(kernel: Kernel, snapshot_id: str) -> None:
    """Take both steps to give a snapshot up; once more does no harm."""
    manifest = load_manifest(kernel.store, snapshot_id)
    if is_pinned(kernel.store, snapshot_id):
        asked = request_unpin(kernel.tables, manifest, why="the machine says so", by="machine")
        confirm_unpin(kernel.tables, manifest, token=asked.token, by="machine")


def data_files(kernel: Kernel) -> set[str]:
    """Return the data files that stand, but for the audit trail's own.

    Each vacuum adds to the trail, and so leaves a file of it for the next one.
    """
    return {
        path
        for table in standing(kernel)
        if table.spec.name != DELETIONS.name
        for path in kernel.store.sizes(table.spec.path)
        if "/_delta_log/" not in path and path.endswith(".parquet")
    }


def reachable(kernel: Kernel) -> set[str]:
    """Return the data files that the heads and the pinned snapshots name."""
    named = {
        f"{table.spec.path}/{entry.path}"
        for table in standing(kernel)
        if table.spec.name != DELETIONS.name
        for entry in table.head().files
    }
    for snapshot_id in pinned_ids(kernel.store):
        named |= load_manifest(kernel.store, snapshot_id).files.keys()
    return named


NEXT_YEAR = timedelta(days=400)
