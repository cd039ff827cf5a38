"""Many pages of Binance klines at once: the common form, read by Polars in one go.

A page in the common form is a list of 12-element lists without a null and without spaces,
its nine amounts as quoted numbers. Such pages are lines of CSV but for their brackets.
Whatever is not exactly so is left to ``flows.venues.binance.parse_bars``, which reads any
page that is sound and says of any other what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from contracts.names import Timeframe
from contracts.spec import Time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.response import Response

_CELLS = {
    "open_time": pl.Int64,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Float64,
    "close_time": pl.Int64,
    "quote_volume": pl.Float64,
    "trade_count": pl.Int64,
    "taker_buy_volume": pl.Float64,
    "taker_buy_quote_volume": pl.Float64,
    "ignored": pl.Float64,
}
_QUOTED = 9
_MILLIS = (10**11, 10**14)
_MICROS = (10**14, 10**17)


def parse_plain_pages(responses: Sequence[Response]) -> pl.DataFrame | None:
    """Return the bars of pages that are all in the common form, or None.

    Shape: ``page`` (UInt32) and the bar columns, in the order given.
    """
    timeframes = {str(response.params.get("interval")) for response in responses}
    counts = [plain_rows(response.body) for response in responses]
    if len(timeframes) != 1 or None in counts:
        return None
    lines = b"\n".join(
        response.body[2:-2].replace(b"],[", b"\n")
        for response, count in zip(responses, counts, strict=True)
        if count
    )
    if not lines:
        return None
    try:
        cells = pl.read_csv(lines, has_header=False, schema=_CELLS, infer_schema=False)
    except pl.exceptions.PolarsError:
        return None
    if cells.height != sum(count or 0 for count in counts):
        return None
    pages = pl.Series("page", range(len(counts)), dtype=pl.UInt32)
    rows = cells.with_columns(page=pages.repeat_by(pl.Series(counts)).explode(empty_as_null=False))
    return _checked(rows, Timeframe.parse(timeframes.pop()))


def plain_rows(body: bytes) -> int | None:
    """Return the number of rows of what looks like a plain page, None of any other."""
    if body == b"[]":
        return 0
    rows = body.count(b"],[") + 1
    whole = body.startswith(b"[[") and body.endswith(b"]]")
    return rows if whole and body.count(b'"') == 2 * _QUOTED * rows else None


def _checked(rows: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame | None:
    """Return the bars if all times are of one unit and every bar is whole."""
    low, high = rows["open_time"].min(), rows["open_time"].max()
    if not isinstance(low, int) or not isinstance(high, int):
        return None
    in_millis = _MILLIS[0] <= low and high < _MILLIS[1]
    in_micros = _MICROS[0] <= low and high < _MICROS[1]
    scale = 1000 if in_millis else 1
    length = rows["close_time"] - rows["open_time"]
    whole = (length == timeframe.micros // scale - 1).all()
    finite = pl.all_horizontal(pl.col(pl.Float64).is_finite().all())
    if not (in_millis or in_micros) or not whole or sum(rows.null_count().row(0)):
        return None
    if not rows.select(finite).item():
        return None
    return rows.with_columns((pl.col("open_time") * scale).cast(Time)).select(
        "page", *(name for name in _CELLS if name not in ("close_time", "ignored"))
    )
