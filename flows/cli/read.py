"""``lake init``, ``bars``, ``instruments``, ``scan``, ``ledger``: open a lake, print data.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

from typing import TYPE_CHECKING, Annotated

from contracts.errors import RequestError
from flows.cli.options import COMMON, OUTPUT, REPLAYING, Common, Many, Output, Replaying

if TYPE_CHECKING:
    import polars as pl

    from lake import Lake

_BARS = ("instrument_id", "open_time", "open", "high", "low", "close", "volume", "trade_count")
_RULES = ("instrument_id", "status", "tick_size", "lot_size", "min_notional", "known_from")
_SPANS = ("instrument_id", "timeframe", "span_start", "span_end", "state", "known_from")


def init(
    *, replaying: Replaying = REPLAYING, output: Output = OUTPUT, common: Common = COMMON
) -> int:
    """Make an empty lake; one that is there already is left as it is.

    `lake backfill` does it by itself. A lake keeps to one origin: live data, or one tape.

    Try: ``lake init --root ./lakehouse``
    """
    from dataclasses import asdict

    from flows.cli.connect import origin_of
    from flows.cli.output import emit_record
    from lake.root import init_lake
    from lake.store import Store

    store = Store(common.root)
    info = init_lake(store, origin=origin_of(replaying))
    emit_record({"root": store.uri, **asdict(info)}, output)
    return 0


def bars(
    *instruments: str,
    timeframe: str,
    start: str | None = None,
    end: str | None = None,
    columns: Annotated[list[str] | None, Many] = None,
    known_at: str | None = None,
    available_at: str | None = None,
    history: bool = False,
    limit: int | None = None,
    snapshot: str | None = None,
    verify: bool = False,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Print bars: as they are, as they were known at a time, or every version of them.

    Try: ``lake bars BTC-USDT-SPOT.BINANCE --timeframe 1h --start 2026-03-24 --format csv``

    Args:
        instruments: Instrument ids, or patterns such as 'BTC-USDT-SPOT.*'.
        timeframe: Length of the bars, for instance 1h.
        start: First open time, UTC.
        end: Where to stop, exclusive.
        columns: Columns of silver.bars. A table shows a few unless told, other forms all.
        known_at: Show what the lake knew at that time.
        available_at: Show only bars that a backtest may assume published by then.
        history: Show every version of each bar, with the time it was the known one.
        limit: Print so many rows at most.
        snapshot: Read a snapshot instead of the newest state.
        verify: With --snapshot, hash each file before it is read.
    """
    from flows.cli.output import emit

    _check_question(
        instruments,
        verify=verify and snapshot is None,
        mixed=history and bool(known_at or available_at),
    )
    lk = _open(common, snapshot, verify=verify)
    names = list(instruments)
    if history:
        rows = lk.bar_history(names, timeframe=timeframe, start=start, end=end, columns=columns)
    else:
        rows = lk.bars(
            names,
            timeframe=timeframe,
            start=start,
            end=end,
            columns=columns,
            known_at=known_at,
            available_at=available_at,
        )
    brief = () if columns else (*_BARS, *(("known_from", "known_to") if history else ()))
    emit(_limited(rows, limit), output, brief=brief)
    return 0


def instruments(
    *,
    venue: str | None = None,
    known_at: str | None = None,
    limit: int | None = None,
    snapshot: str | None = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Print the rules of the instruments that the lake knows: steps, minima, status.

    Try: ``lake instruments --venue binance --format json``

    Args:
        venue: Only this venue's.
        known_at: Show what the lake knew at that time.
        limit: Print so many rows at most.
        snapshot: Read a snapshot instead of the newest state.
    """
    from flows.cli.output import emit

    rows = _open(common, snapshot).instruments(venue, known_at=known_at)
    emit(_limited(rows, limit), output, brief=_RULES)
    return 0


def scan(
    table: str,
    /,
    *,
    columns: Annotated[list[str] | None, Many] = None,
    limit: int | None = None,
    snapshot: str | None = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Print a table as it is stored.

    Try: ``lake scan ops.quarantine --limit 20``

    Args:
        table: For instance silver.bars; `lake schema` lists them.
        columns: Only these columns.
        limit: Print so many rows at most.
        snapshot: Read a snapshot instead of the newest state.
    """
    from contracts.names import suggest
    from contracts.tables import table as declared
    from flows.cli.output import emit

    spec = declared(table)
    for name in columns or ():
        if name not in spec.by_name:
            raise RequestError(
                f"{table} has no column {name!r}", remedy=suggest(name, spec.by_name)
            )
    rows = _open(common, snapshot).scan(table)
    emit(_limited(rows.select(columns) if columns else rows, limit), output)
    return 0


def ledger(
    *instruments: str,
    timeframe: str | None = None,
    start: str | None = None,
    end: str | None = None,
    state: Annotated[list[str] | None, Many] = None,
    known_at: str | None = None,
    limit: int | None = None,
    snapshot: str | None = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Print what is known of each span of each stream: present, missing, quarantined, ...

    With --start and --end the spans tile that time without a hole.

    Try: ``lake ledger --state missing quarantined``

    Args:
        instruments: Instrument ids; all streams when left out.
        timeframe: Only streams of this timeframe.
        start: Start of the time to look at.
        end: Its end, exclusive.
        state: Only spans in these states.
        known_at: Show what the lake knew at that time.
        limit: Print so many rows at most.
        snapshot: Read a snapshot instead of the newest state.
    """
    import polars as pl

    from contracts.names import suggest
    from contracts.tables import State
    from flows.cli.output import emit

    for name in state or ():
        if name not in list(State):
            raise RequestError(f"{name!r} is not a state", remedy=suggest(name, State))
    spans = _open(common, snapshot).ledger(
        list(instruments) or None, timeframe=timeframe, start=start, end=end, known_at=known_at
    )
    if state:
        spans = spans.filter(pl.col("state").is_in(state))
    emit(_limited(spans.lazy(), limit), output, brief=_SPANS)
    return 0


def _check_question(instruments: tuple[str, ...], *, verify: bool, mixed: bool) -> None:
    """Refuse a question for bars that cannot be meant."""
    if not instruments:
        raise RequestError(
            "`lake bars` was given no instrument",
            remedy="Name some, for instance BTC-USDT-SPOT.BINANCE or '*'",
        )
    if verify:
        raise RequestError(
            "--verify checks the files of a snapshot", remedy="Name one with --snapshot"
        )
    if mixed:
        raise RequestError(
            "--history shows what was known at every time",
            remedy="Leave out --known-at and --available-at, or --history",
        )


def _open(common: Common, snapshot: str | None, *, verify: bool = False) -> "Lake":
    import lake

    return lake.open(common.root, snapshot=snapshot, verify=verify)


def _limited(rows: "pl.LazyFrame", limit: int | None) -> "pl.DataFrame":
    if limit is not None and limit < 0:
        raise RequestError(f"--limit {limit} is below zero", remedy="Give a count of rows")
    return (rows if limit is None else rows.head(limit)).collect()
