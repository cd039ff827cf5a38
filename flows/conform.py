"""Conform: turn landed answers into the typed frame of one stream.

Takes responses, gives a candidate frame: the columns of silver.bars but known_from, in the
order of the pages. Pure Polars; nothing is judged, dropped or filled here.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.spec import Time
from contracts.tables import BARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.response import Response
    from flows.batches import BarStream
    from flows.venues.base import VenueAdapter

# How long after the close a source is assumed to have published a bar; for backtests over
# backfilled history.
PUBLICATION_LAG = {"rest": timedelta(seconds=2), "stream": timedelta(seconds=2)}
CANDIDATE_COLUMNS = tuple(name for name in BARS.schema.names() if name != BARS.known)


async def conform(
    adapter: VenueAdapter, stream: BarStream, responses: Sequence[Response], *, source: str = "rest"
) -> pl.DataFrame:
    """Return the bars of some pages as a candidate frame.

    Raises:
        PayloadError: A page has a shape that we do not know; the raw response is kept.
    """
    return await asyncio.to_thread(candidate_bars, adapter, stream, responses, source)


def candidate_bars(
    adapter: VenueAdapter, stream: BarStream, responses: Sequence[Response], source: str
) -> pl.DataFrame:
    """Parse pages and add what the stream knows of them."""
    parsed = adapter.parse_bars_many(responses)
    lag = PUBLICATION_LAG[source]
    open_time = pl.col("open_time").cast(Time)
    return parsed.with_columns(
        open_time,
        instrument_id=pl.lit(str(stream.instrument_id)),
        venue=pl.lit(stream.instrument_id.venue.value),
        timeframe=pl.lit(stream.timeframe.code),
        year=open_time.dt.year().cast(pl.Int32),
        source=pl.lit(source),
        available_at=open_time + stream.timeframe.duration + lag,
    ).select(CANDIDATE_COLUMNS)
