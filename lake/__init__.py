"""A point-in-time lakehouse for crypto market data: the SDK.

::

    import lake

    lk = lake.open("lakehouse")
    lk.bars("BTC-USDT-SPOT.BINANCE", timeframe="1h", start="2026-04-01").collect()

Importing it loads Polars and deltalake and little else.
"""

from __future__ import annotations

from contracts.errors import RequestError, TidemarkError
from contracts.names import CanonicalId, InstrumentId, Timeframe, Venue
from contracts.time import Span, SteppedClock, SystemClock
from lake.lakehouse import Lake
from lake.lakehouse import open_lake as open  # noqa: A004 - `lake.open` reads as it should

__all__ = [
    "CanonicalId",
    "InstrumentId",
    "Lake",
    "RequestError",
    "Span",
    "SteppedClock",
    "SystemClock",
    "TidemarkError",
    "Timeframe",
    "Venue",
    "open",
]
