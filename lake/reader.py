"""From a question to a LazyFrame: which files, in which order, filtered how.

A read is planned from what the log or the manifest says of each file. A file that holds one
instrument inside the asked span is read without a filter; where the time ranges of an
instrument's files prove their order, nothing is sorted.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import (
    BeforeFirstKnowledgeError,
    InvalidNameError,
    RequestError,
    UnknownStreamError,
)
from contracts.names import InstrumentId, suggest
from contracts.spec import time_lit
from contracts.tables import BAR_REVISIONS, BARS, LEDGER
from contracts.time import iso
from lake.bitemporal import known_versions, version_spans
from lake.ledger import read_observations
from lake.scan import collect_files, scan_files
from lake.segments import Segment, first_open, is_pure, last_open, plan_segments
from lake.tables import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from contracts.names import Timeframe
    from contracts.spec import TableSpec
    from lake.parts import FileEntry
    from lake.sources import Source

_KEY = ("instrument_id", "open_time")
_PIECEWISE = 64
_PATTERN = "*?["
_STATISTICS_STEP = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class BarsQuery:
    """A question for bars; times are aware, None is unbounded."""

    instruments: tuple[str, ...]
    timeframe: Timeframe
    start: datetime | None = None
    end: datetime | None = None
    known_at: datetime | None = None
    available_at: datetime | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Cut:
    """The parts of a source that a question for bars needs."""

    source: Source
    bars: View
    revisions: View
    ledger: View


def read_bars(source: Source, query: BarsQuery) -> pl.LazyFrame:
    """Return the bars a query asks for.

    Shape: the columns of silver.bars, or those asked for; sorted by instrument_id and
    open_time; one row per bar.

    Raises:
        UnknownStreamError: An instrument has no bars of this timeframe and nobody ever
            asked for any.
        BeforeFirstKnowledgeError: ``known_at`` precedes all knowledge of an instrument.
        RequestError: An unknown column.
    """
    columns = _checked_columns(BARS, query.columns)
    cut = _cut(source, query)
    names = _instruments(cut, query)
    if query.known_at is not None:
        for name in names:
            _check_known(cut, query, name)
    pieces = _pieces(cut, query, names)
    if not pieces:
        return BARS.empty().lazy().select(columns)
    rows = pieces[0] if len(pieces) == 1 else pl.concat(pieces, how="vertical")
    if query.available_at is not None:
        rows = rows.filter(pl.col("available_at") <= time_lit(query.available_at))
    return rows.select(columns)


def read_bar_history(source: Source, query: BarsQuery) -> pl.LazyFrame:
    """Return every version of the bars a query asks for.

    Shape: the columns of silver.bars and ``known_to``, null for what is known now; sorted
    by instrument_id, open_time and known_from.
    """
    columns = _checked_columns(BARS, query.columns)
    cut = _whole_cut(source)
    names = _instruments(cut, query)
    current = _selected(cut.source, cut.bars, query, names)
    revisions = _selected(cut.source, cut.revisions, query, names)
    spans = version_spans(current, revisions, _KEY)
    return spans.select(*columns, "known_to")


def _cut(source: Source, query: BarsQuery) -> _Cut:
    """Resolve the tables that a query needs, in the reverse order of the path.

    A plain read of instruments that have files of their own needs silver.bars alone.
    """
    if query.known_at is None:
        bars = source.views([BARS.name])[BARS.name]
        nothing = View(BAR_REVISIONS, -1, ()), View(LEDGER, -1, ())
        if all(_has_own_file(bars, query, name) for name in query.instruments):
            return _Cut(source, bars, *nothing)
    return _whole_cut(source)


def _whole_cut(source: Source) -> _Cut:
    views = source.views([BARS.name, BAR_REVISIONS.name, LEDGER.name])
    return _Cut(source, views[BARS.name], views[BAR_REVISIONS.name], views[LEDGER.name])


def _has_own_file(bars: View, query: BarsQuery, name: str) -> bool:
    return any(
        entry.low["instrument_id"] == name == entry.high["instrument_id"]
        and entry.partition["timeframe"] == query.timeframe.code
        for entry in bars.files
    )


def _checked_columns(spec: TableSpec, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return spec.schema.names()
    for name in columns:
        if name not in spec.by_name:
            raise RequestError(
                f"{spec.name} has no column {name!r}", remedy=suggest(name, spec.by_name)
            )
    if len(set(columns)) != len(columns):
        raise RequestError(
            f"A column is asked for twice in {list(columns)}", remedy="Name each column once"
        )
    return list(columns)


def _instruments(cut: _Cut, query: BarsQuery) -> list[str]:
    """Return the exact ids that a query's names and patterns stand for, sorted."""
    found: set[str] = set()
    known: list[str] | None = None
    for name in query.instruments:
        if any(sign in name for sign in _PATTERN):
            known = stream_ids(cut, query.timeframe) if known is None else known
            matches = [each for each in known if fnmatch.fnmatchcase(each, name)]
            if not matches:
                raise _unknown(name, query, known)
            found.update(matches)
        else:
            found.add(_exact(cut, query, name))
    return sorted(found)


def _exact(cut: _Cut, query: BarsQuery, name: str) -> str:
    try:
        exact = str(InstrumentId.parse(name))
    except InvalidNameError as error:
        remedy = f"{error.remedy}; in a lake an instrument is asked as BTC-USDT-SPOT.BINANCE"
        raise InvalidNameError(error.message, remedy=remedy, text=name) from None
    whole = BarsQuery((), query.timeframe)
    files = _files_of(cut.bars, whole, exact)
    if any(is_pure(entry) for entry in files):
        return exact
    if not _observed(cut, query.timeframe, exact).is_empty():
        return exact
    if not _collected(cut, cut.bars, files, lambda rows: _only(rows, exact).head(1)).is_empty():
        return exact
    raise _unknown(name, query, stream_ids(cut, query.timeframe))


def stream_ids(cut: _Cut, timeframe: Timeframe) -> list[str]:
    """Return the instruments of which there are bars, or observations of bars."""
    query = BarsQuery((), timeframe)
    files = _timeframe_files(cut.bars, query)
    pure = {str(entry.low["instrument_id"]) for entry in files if is_pure(entry)}
    mixed = [entry for entry in files if not is_pure(entry)]
    stored = _collected(cut, cut.bars, mixed, lambda rows: rows.select("instrument_id").unique())
    of_timeframe = pl.col("timeframe") == pl.lit(timeframe.code)
    observed = _collected(
        cut,
        cut.ledger,
        cut.ledger.files,
        lambda rows: rows.filter(of_timeframe).select("instrument_id").unique(),
    )
    return sorted(pure | set(stored["instrument_id"]) | set(observed["instrument_id"]))


def _observed(cut: _Cut, timeframe: Timeframe, name: str) -> pl.DataFrame:
    """Return the observations of one instrument's bars of a timeframe."""
    cut.source.trust(cut.ledger, cut.ledger.files)
    observed = read_observations(cut.source.store, cut.ledger, instruments=[name])
    return observed.filter(pl.col("timeframe") == timeframe.code)


def _collected(
    cut: _Cut,
    view: View,
    files: Sequence[FileEntry],
    ask: Callable[[pl.LazyFrame], pl.LazyFrame],
) -> pl.DataFrame:
    """Return what is asked of the rows of some files, which are trusted first."""
    cut.source.trust(view, files)
    store = cut.source.store
    return collect_files(store, view.spec, files, ask(scan_files(store, view.spec, files)))


def _unknown(name: str, query: BarsQuery, known: Iterable[str]) -> UnknownStreamError:
    return UnknownStreamError(
        f"This lake knows no {query.timeframe} bars of {name!r}",
        remedy=suggest(name, known) + "; fetch it with `lake backfill`",
        instrument_id=name,
        timeframe=query.timeframe.code,
    )


def _timeframe_files(view: View, query: BarsQuery) -> list[FileEntry]:
    """Return the files of a query's timeframe that touch its span."""
    return [
        entry
        for entry in view.files
        if entry.partition["timeframe"] == query.timeframe.code
        and (query.start is None or last_open(entry) >= query.start)
        and (query.end is None or first_open(entry) < query.end)
    ]


def _only(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
    return rows.filter(pl.col("instrument_id") == pl.lit(name))


def _pieces(cut: _Cut, query: BarsQuery, names: Sequence[str]) -> list[pl.LazyFrame]:
    if len(names) > _PIECEWISE:
        rows = _selected(cut.source, cut.bars, query, names).sort(_KEY)
        return [_as_known(rows, _selected(cut.source, cut.revisions, query, names), query)]
    current = [_ordered(cut.source, cut.bars, query, name) for name in names]
    if query.known_at is None:
        return current
    return [
        _as_known(rows, _superseded(cut.source, cut.revisions, query, name), query)
        for rows, name in zip(current, names, strict=True)
    ]


def _as_known(current: pl.LazyFrame, revisions: pl.LazyFrame, query: BarsQuery) -> pl.LazyFrame:
    """Return the versions known at the query's known_at, in the order of ``current``."""
    known_at = query.known_at
    if known_at is None:
        return current
    wanted = {*_KEY, "known_from", "available_at", *(query.columns or BARS.schema.names())}
    columns = [name for name in BARS.schema.names() if name in wanted]

    def known(frame: pl.DataFrame) -> pl.DataFrame:
        return known_versions(frame, revisions.select(columns).collect(), _KEY, known_at)

    schema = {name: BARS.schema[name] for name in columns}
    return _opaque(current.select(columns), known, schema)


def _ordered(source: Source, view: View, query: BarsQuery, name: str) -> pl.LazyFrame:
    """Return the rows of one instrument in order of time."""
    files = _files_of(view, query, name)
    source.trust(view, files)
    step = query.timeframe.duration
    pieces = [
        _segment(source, view, segment, name)
        for segment in plan_segments(files, step=step, start=query.start, end=query.end)
    ]
    if not pieces:
        return view.spec.empty().lazy()
    return pieces[0] if len(pieces) == 1 else pl.concat(pieces, how="vertical")


def _segment(source: Source, view: View, segment: Segment, name: str) -> pl.LazyFrame:
    rows = scan_files(source.store, view.spec, segment.files)
    if segment.whole:
        return rows
    if not all(is_pure(entry) for entry in segment.files):
        rows = _only(rows, name)
    rows = _inside(rows, segment.start, segment.end)
    return rows if segment.in_order else _in_order_of_time(rows)


def _superseded(source: Source, view: View, query: BarsQuery, name: str) -> pl.LazyFrame:
    """Return the superseded rows of one instrument, in no order."""
    files = _files_of(view, query, name)
    source.trust(view, files)
    rows = _only(scan_files(source.store, view.spec, files), name)
    return _inside(rows, query.start, query.end)


def _files_of(view: View, query: BarsQuery, name: str) -> list[FileEntry]:
    """Return the files of a query's span that may hold an instrument."""
    venue = InstrumentId.parse(name).venue.value
    return [
        entry
        for entry in _timeframe_files(view, query)
        if entry.partition["venue"] == venue and entry.may_hold("instrument_id", name, name)
    ]


def _in_order_of_time(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Sort the rows of one instrument, unless they are in order, as they nearly always are."""

    def ordered(frame: pl.DataFrame) -> pl.DataFrame:
        return frame if frame["open_time"].is_sorted() else frame.sort("open_time")

    return _opaque(rows, ordered, BARS.schema)


def _opaque(
    rows: pl.LazyFrame,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    schema: Mapping[str, pl.DataType],
) -> pl.LazyFrame:
    """Apply a function to all rows at once; what is asked of its result stays behind it."""
    return rows.map_batches(
        function,
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
        schema=schema,
    )


def _inside(rows: pl.LazyFrame, start: datetime | None, end: datetime | None) -> pl.LazyFrame:
    if start is not None:
        rows = rows.filter(pl.col("open_time") >= time_lit(start))
    if end is not None:
        rows = rows.filter(pl.col("open_time") < time_lit(end))
    return rows


def _selected(source: Source, view: View, query: BarsQuery, names: Sequence[str]) -> pl.LazyFrame:
    """Return the rows of many instruments, in no order."""
    if not names:
        return view.spec.empty().lazy()
    files = [
        entry
        for entry in _timeframe_files(view, query)
        if entry.may_hold("instrument_id", names[0], names[-1])
    ]
    source.trust(view, files)
    rows = _inside(scan_files(source.store, view.spec, files), query.start, query.end)
    return rows.filter(pl.col("instrument_id").is_in(list(names)))


def _check_known(cut: _Cut, query: BarsQuery, name: str) -> None:
    """Refuse a known_at that precedes all knowledge of an instrument's bars."""
    known_at = query.known_at
    if known_at is None:
        return
    whole = BarsQuery((), query.timeframe)
    for view in (cut.bars, cut.revisions):
        for entry in _timeframe_files(view, whole):
            pure = is_pure(entry) and entry.low["instrument_id"] == name
            least = entry.low["known_from"] if pure else None
            if isinstance(least, datetime) and least + _STATISTICS_STEP <= known_at:
                return
    firsts = [
        _collected(
            cut,
            view,
            _files_of(view, whole, name),
            lambda rows: _only(rows, name).select(pl.col("known_from").min()),
        ).item()
        for view in (cut.bars, cut.revisions)
    ]
    firsts.append(_observed(cut, query.timeframe, name)["known_from"].min())
    first = min((moment for moment in firsts if moment is not None), default=None)
    if first is None or first > known_at:
        told = "never" if first is None else iso(first)
        raise BeforeFirstKnowledgeError(
            f"Nothing was known of {query.timeframe} bars of {name} at {iso(known_at)}: "
            f"the first knowledge is of {told}",
            remedy="Ask for a later known_at; for a backtest over backfilled history use "
            "available_at",
            instrument_id=name,
            first_known=first,
        )
