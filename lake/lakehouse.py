"""``Lake``: the SDK's one object; it parses what it is asked and delegates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import RequestError
from contracts.names import InstrumentId, Timeframe, Venue
from contracts.spec import Time, time_lit
from contracts.tables import INSTRUMENTS, LEDGER, table
from contracts.time import Clock, Span, SystemClock, parse_time
from lake.labels import labels_by_snapshot, resolve_snapshot
from lake.ledger import STREAM, fold, read_observations, runs, tiling
from lake.manifest import load_manifest
from lake.pinlog import pin_states
from lake.reader import BarsQuery, read_bar_history, read_bars
from lake.root import read_lake
from lake.scan import scan_files
from lake.sources import NoHeads, Pinned, Source, Tables
from lake.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime
    from pathlib import Path

    from lake.diff import Diff
    from lake.lockfile import Lock
    from lake.manifest import Manifest
    from lake.root import LakeInfo


class Lake:
    """A lake, read at its heads or at a snapshot. Built by ``lake.open``."""

    def __init__(
        self,
        store: Store,
        source: Source,
        *,
        manifest: Manifest | None,
        lock: Lock | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._manifest = manifest
        self._lock = lock

    @property
    def root(self) -> str:
        """Where the lake is."""
        return self._store.uri

    @property
    def info(self) -> LakeInfo:
        """Format, identity and origin of the lake."""
        return read_lake(self._store)

    @property
    def snapshot_id(self) -> str | None:
        """The snapshot that is read, or None at the heads."""
        return None if self._manifest is None else self._manifest.snapshot_id

    @property
    def manifest(self) -> Manifest | None:
        """The snapshot's manifest, or None at the heads."""
        return self._manifest

    @property
    def lock(self) -> Lock | None:
        """The lake.lock that was opened, or None."""
        return self._lock

    def locked_bars(self, name: str | None = None, *, verify: bool = False) -> pl.LazyFrame:
        """Return the bars of a query that the lock pins.

        Args:
            name: Which query; may be left out where the lock has one.
            verify: Read the bars at once, and compare their hash with the locked one.

        Shape: as ``bars``, with the locked columns.

        Raises:
            RequestError: No lock was opened, or it has no such query.
            LockDriftError: The bars are not those that were locked.
        """
        from lake.locked import locked_bars

        return locked_bars(self._source, self._lock, name, verify=verify)

    def bars(
        self,
        instruments: str | Sequence[str],
        *,
        timeframe: str,
        start: str | date | datetime | None = None,
        end: str | date | datetime | None = None,
        columns: Sequence[str] | None = None,
        known_at: str | date | datetime | None = None,
        available_at: str | date | datetime | None = None,
    ) -> pl.LazyFrame:
        """Return bars.

        Args:
            instruments: Instrument ids, or patterns such as ``BTC-USDT-SPOT.*``.
            timeframe: For instance ``1m``.
            start: First open_time; unbounded when None.
            end: Open_time to stop before; unbounded when None.
            columns: Columns of silver.bars; all when None.
            known_at: Show what the lake knew at that time (system axis).
            available_at: Show only bars that were published by then, by the source's
                declared lag (valid axis): for backtests over backfilled history.

        Shape: one row per bar, sorted by instrument_id and open_time; columns as declared
        in silver.bars.

        Raises:
            UnknownStreamError: Nobody ever asked for bars of that instrument here.
            BeforeFirstKnowledgeError: ``known_at`` precedes all knowledge of them.
        """
        return read_bars(
            self._source,
            bars_query(
                instruments,
                timeframe=timeframe,
                start=start,
                end=end,
                columns=columns,
                known_at=known_at,
                available_at=available_at,
            ),
        )

    def bar_history(
        self,
        instruments: str | Sequence[str],
        *,
        timeframe: str,
        start: str | date | datetime | None = None,
        end: str | date | datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Return every version of the bars, with the span in which it was the known one.

        Shape: columns of silver.bars and ``known_to`` (null for what is known now), sorted
        by instrument_id, open_time and known_from.
        """
        query = bars_query(instruments, timeframe=timeframe, start=start, end=end, columns=columns)
        return read_bar_history(self._source, query)

    def instruments(
        self, venue: str | None = None, *, known_at: str | date | datetime | None = None
    ) -> pl.LazyFrame:
        """Return the newest known rules of each instrument.

        Args:
            venue: Only this venue's.
            known_at: Show what the lake knew at that time.

        Shape: the columns of silver.instruments, one row per instrument, sorted.
        """
        rows = self.scan(INSTRUMENTS.name)
        if venue is not None:
            rows = rows.filter(pl.col("venue") == Venue.parse(venue).value)
        if known_at is not None:
            moment = parse_time(known_at, name="known_at")
            rows = rows.filter(pl.col("known_from") <= time_lit(moment))
        return rows.sort("instrument_id", "known_from").unique(
            subset=["instrument_id"], keep="last", maintain_order=True
        )

    def scan(self, name: str) -> pl.LazyFrame:
        """Return a whole table as it is stored, for instance ``silver.bars``.

        Raises:
            UnknownTableError: No such table.
        """
        spec = table(name)
        view = self._source.views([name])[name]
        self._source.trust(view, view.files)
        return scan_files(self._store, spec, view.files)

    def ledger(
        self,
        instruments: str | Sequence[str] | None = None,
        *,
        timeframe: str | None = None,
        start: str | date | datetime | None = None,
        end: str | date | datetime | None = None,
        known_at: str | date | datetime | None = None,
    ) -> pl.DataFrame:
        """Return what is known of each span, as maximal runs per state.

        With ``start`` and ``end`` the runs tile that span exactly for every stream, what
        nobody asked for being ``unfetched``; without, they are what was observed.

        Args:
            instruments: Instrument ids; all streams when None.
            timeframe: Only streams of this timeframe.
            start: Start of the span to tile.
            end: Its end, exclusive.
            known_at: Show what was known at that time.

        Shape: instrument_id, kind, timeframe, span_start, span_end, state, source,
        evidence, known_from.
        """
        names = _names(instruments) if instruments is not None else None
        wanted = None
        if names is not None:
            wanted = [str(InstrumentId.parse(name)) for name in names]
        span = Span.parse(start, end) if start is not None and end is not None else None
        view = self._source.views([LEDGER.name])[LEDGER.name]
        self._source.trust(view, view.files)
        observed = read_observations(self._store, view, instruments=wanted, span=span)
        if timeframe is not None:
            code = Timeframe.parse(timeframe).code
            observed = observed.filter(pl.col("timeframe") == code)
        moment = None if known_at is None else parse_time(known_at, name="known_at")
        folded = fold(observed, known_at=moment)
        if span is None:
            return _clipped(runs(folded), start, end)
        streams = set(folded.select(STREAM).unique().iter_rows())
        if wanted is not None and timeframe is not None:
            streams |= {(name, "bars", Timeframe.parse(timeframe).code) for name in wanted}
        return tiling(folded, sorted(streams), span)

    def snapshots(self) -> pl.DataFrame:
        """Return the lake's snapshots, oldest first.

        Shape: snapshot_id, created_at, pin (``pinned``, ``unpin_requested`` or ``unpinned``),
        labels, note (the label that an older Tidemark wrote beside the content), tables,
        files, rows, size_bytes.
        """
        labels = labels_by_snapshot(self._store)
        rows = [
            {
                "pin": state.value,
                "labels": labels.get(name, []),
                **_summary(load_manifest(self._store, name)),
            }
            for name, state in pin_states(self._store).items()
        ]
        return pl.DataFrame(rows, schema=_SUMMARY).sort("created_at", "snapshot_id")

    def diff(self, other: str, *, rows: bool = False, tables: Sequence[str] | None = None) -> Diff:
        """Return what another snapshot says differently from the one that is read.

        Args:
            other: The new one: an id, the beginning of one, or a label.
            rows: Return the rows as well, with old and new values.
            tables: Only these tables; all that both pin when None.

        Shape: see ``lake.diff.Diff``.

        Raises:
            RequestError: The heads are read, not a snapshot.
            UnknownSnapshotError: No such snapshot.
            TableNotPinnedError: One of ``tables`` is not pinned by both.
        """
        from lake.diff import diff_snapshots
        from lake.locked import refuse_when_locked

        if self._manifest is None:
            raise RequestError(
                "Only snapshots can be compared, and the heads are read",
                remedy="Open the lake with snapshot=; pin the heads first, that costs little",
            )
        new = resolve_snapshot(self._store, other)
        if new.snapshot_id != self._manifest.snapshot_id:
            refuse_when_locked(f"snapshot {new.snapshot_id} of {self._store.uri}")
        return diff_snapshots(self._store, self._manifest, new, rows=rows, tables=tables)


_SUMMARY = {
    "snapshot_id": pl.String(),
    "created_at": Time,
    "pin": pl.String(),
    "labels": pl.List(pl.String()),
    "note": pl.String(),
    "tables": pl.Int64(),
    "files": pl.Int64(),
    "rows": pl.Int64(),
    "size_bytes": pl.Int64(),
}


def _summary(manifest: Manifest) -> dict[str, object]:
    files = [told for pinned in manifest.tables.values() for told in pinned["files"]]
    return {
        "snapshot_id": manifest.snapshot_id,
        "created_at": parse_time(manifest.beside["created_at"]),
        "note": manifest.beside.get("label"),
        "tables": len(manifest.tables),
        "files": len(files),
        "rows": sum(told["rows"] for told in files),
        "size_bytes": sum(told["size"] for told in files),
    }


def open_lake(
    root: str | Path | None = None,
    *,
    snapshot: str | None = None,
    lock: str | Path | None = None,
    verify: bool = False,
    allow_engine_drift: bool = False,
    storage_options: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Lake:
    """Open a lake for reading.

    Args:
        root: A folder, or ``s3://bucket/prefix``. With a lock, where the lock says if None.
        snapshot: What to pin every read to: a snapshot_id, the unique beginning of one, or a
            label; the heads when None.
        lock: A lake.lock: its snapshot is opened, if nothing has drifted.
        verify: With a snapshot: hash each file before it is read.
        allow_engine_drift: With a lock: let other versions of Tidemark, Polars, deltalake
            or Python read than those that it names.
        storage_options: Object-store options in the spelling of delta-rs.
        clock: For tests and replays; the machine's when None.

    Raises:
        LakeNotFoundError: There is no lake at this root.
        RequestError: ``verify`` without a snapshot, no root, or a lock and another snapshot.
        LakeFormatError: It was written by a newer Tidemark.
        UnknownSnapshotError: No such snapshot.
        AmbiguousSnapshotError: The beginning of several ids.
        ChecksumError: The snapshot's manifest, or the lock, is not what was written.
        LockDriftError: What the lock pins and what is there differ.
        LockedRunError: The run is bound to a lock, and something else was asked.
    """
    clock = clock or SystemClock()
    if lock is not None or os.environ.get("LAKE_LOCK"):
        from lake.locked import Asked, open_locked

        asked = Asked(root, snapshot, lock, storage_options, allow_engine_drift)
        found = open_locked(asked, clock)
        pinned = Pinned(found.store, found.manifest, verify=verify)
        return Lake(found.store, pinned, manifest=found.manifest, lock=found.lock)
    if root is None:
        raise RequestError("No lake was named", remedy="Pass its root, or lock=")
    store = Store(root, options=storage_options)
    info = read_lake(store)
    if snapshot is None:
        if verify:
            raise RequestError(
                "Only a snapshot can be verified, and none is named",
                remedy="Pass snapshot=, or leave verify out",
            )
        if info.holds is not None:
            return Lake(store, NoHeads(store), manifest=None)
        return Lake(store, Tables(store, clock), manifest=None)
    manifest = resolve_snapshot(store, snapshot)
    return Lake(store, Pinned(store, manifest, verify=verify), manifest=manifest)


def _names(instruments: str | Sequence[str]) -> tuple[str, ...]:
    return (instruments,) if isinstance(instruments, str) else tuple(instruments)


def bars_query(
    instruments: str | Sequence[str],
    *,
    timeframe: str,
    start: str | date | datetime | None = None,
    end: str | date | datetime | None = None,
    columns: Sequence[str] | None = None,
    known_at: str | date | datetime | None = None,
    available_at: str | date | datetime | None = None,
) -> BarsQuery:
    """Return a question for bars from what a caller says; the words of ``Lake.bars``.

    Raises:
        RequestError: It cannot be meant.
    """

    def moment(value: str | date | datetime | None, name: str) -> datetime | None:
        return None if value is None else parse_time(value, name=name)

    if not _names(instruments):
        raise RequestError(
            "No instrument was named", remedy="Name one such as BTC-USDT-SPOT.BINANCE, or '*'"
        )
    first, last = moment(start, "start"), moment(end, "end")
    if first is not None and last is not None:
        Span(first, last)
    return BarsQuery(
        instruments=_names(instruments),
        timeframe=Timeframe.parse(timeframe),
        start=first,
        end=last,
        known_at=moment(known_at, "known_at"),
        available_at=moment(available_at, "available_at"),
        columns=None if columns is None else _names(columns),
    )


def _clipped(
    found: pl.DataFrame, start: str | date | datetime | None, end: str | date | datetime | None
) -> pl.DataFrame:
    if start is not None:
        moment = parse_time(start, name="start")
        found = found.filter(pl.col("span_end") > time_lit(moment))
    if end is not None:
        moment = parse_time(end, name="end")
        found = found.filter(pl.col("span_start") < time_lit(moment))
    return found
