"""Reference: keep the list of a venue's instruments, and find symbols in it.

Each version of an instrument's rules is kept from the moment it is first seen; an unchanged
list adds nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import UnknownSymbolError, UnsupportedByVenueError
from contracts.names import CanonicalId, suggest
from contracts.spec import Time, time_lit
from contracts.tables import INSTRUMENTS, RESPONSES
from contracts.validate import validate
from flows.land import land
from lake.appends import append_missing
from lake.scan import read_files, scan_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from contracts.names import InstrumentId
    from contracts.response import Response
    from flows.venues.base import VenueAdapter
    from flows.work import Work


async def find_instruments(
    work: Work, adapter: VenueAdapter, symbols: Sequence[str]
) -> list[tuple[InstrumentId, str]]:
    """Return the instruments that symbols stand for, with the venue's own spelling.

    The venue is asked for its list when the lake has none, when it is old, or when a symbol
    is not in it.

    Args:
        work: The run.
        adapter: The venue.
        symbols: Canonical ids or ccxt symbols.

    Raises:
        InvalidNameError: A symbol has no known form.
        UnknownSymbolError: The venue lists no such symbol; the nearest are offered.
        UnsupportedByVenueError: The symbol is of another market type than is served.
    """
    wanted = [CanonicalId.parse(symbol) for symbol in symbols]
    for each in wanted:
        if each.market_type is not adapter.market_type:
            raise UnsupportedByVenueError(
                f"{each} is a {each.market_type}; of {adapter.venue} only {adapter.market_type} "
                "instruments are served",
                remedy=f"Ask for {each.base}/{each.quote}, or for another venue",
                symbol=each.ccxt,
                venue=adapter.venue.value,
            )
    listed = current_instruments(work, adapter.venue.value)
    fetched = False
    if listed.is_empty() or _is_old(work, adapter):
        listed, fetched = await _refresh(work, adapter), True
    known = dict(listed.select("canonical_id", "venue_symbol").iter_rows())
    if not fetched and any(str(each) not in known for each in wanted):
        listed = await _refresh(work, adapter)
        known = dict(listed.select("canonical_id", "venue_symbol").iter_rows())
    for each in wanted:
        if str(each) not in known:
            names = [CanonicalId.parse(name).ccxt for name in known]
            raise UnknownSymbolError(
                f"{adapter.venue} lists no {adapter.market_type} symbol {each.ccxt}",
                remedy=suggest(each.ccxt, sorted(names)),
                symbol=each.ccxt,
                venue=adapter.venue.value,
            )
    return [(each.at(adapter.venue), known[str(each)]) for each in wanted]


def current_instruments(work: Work, venue: str) -> pl.DataFrame:
    """Return the newest version of the rules of each instrument of a venue."""
    view = work.table(INSTRUMENTS.name).head()
    rows = read_files(work.store, INSTRUMENTS, view.partition({"venue": venue}))
    ordered = rows.sort("instrument_id", "known_from")
    return ordered.unique(subset=["instrument_id"], keep="last", maintain_order=True)


def _is_old(work: Work, adapter: VenueAdapter) -> bool:
    """Tell whether no list was landed within the settings' span."""
    since = work.clock.known() - timedelta(hours=work.settings.instruments_hours)
    view = work.table(RESPONSES.name).head()
    files = [
        entry
        for entry in view.files
        if entry.partition["venue"] == adapter.venue.value
        and entry.partition["date"] >= f"{since:%Y-%m-%d}"
    ]
    lists = scan_files(work.store, RESPONSES, files).filter(
        pl.col("endpoint").str.contains("exchangeInfo", literal=True),
        pl.col("status") == 200,
        pl.col("received_at") >= time_lit(since),
    )
    return lists.head(1).collect().is_empty()


async def _refresh(work: Work, adapter: VenueAdapter) -> pl.DataFrame:
    response = await adapter.fetch_instruments()
    await land(work, [response])
    seen = adapter.parse_instruments(response)
    await asyncio.to_thread(_publish, work, adapter, seen, response)
    return current_instruments(work, adapter.venue.value)


def _publish(work: Work, adapter: VenueAdapter, seen: pl.DataFrame, response: Response) -> None:
    versions = instrument_versions(seen, adapter.venue.value, response, work.clock.known())
    changed = changed_instruments(versions, current_instruments(work, adapter.venue.value))
    validate(INSTRUMENTS, changed)
    append_missing(work.table(INSTRUMENTS.name), changed, app=f"instruments/{adapter.venue}")


def instrument_versions(
    seen: pl.DataFrame, venue: str, response: Response, known: datetime
) -> pl.DataFrame:
    """Return what a list says as rows of silver.instruments, valid from when it was seen."""
    return seen.with_columns(
        instrument_id=pl.col("canonical_id") + f".{venue.upper()}",
        venue=pl.lit(venue),
        listing=pl.lit(1, pl.Int32),
        valid_from=time_lit(response.received_at),
        valid_to=pl.lit(None, Time),
        response_id=pl.lit(response.response_id),
        known_from=time_lit(known),
    ).select(INSTRUMENTS.schema.names())


def changed_instruments(versions: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose rules differ from the newest known version, or are new."""
    compared = ("instrument_id", *INSTRUMENTS.value_columns)
    return versions.join(current.select(compared), on=compared, how="anti", nulls_equal=True)
