"""Bars in the form of Binance: one JSON row per bar, numbers exact, padded to eight decimals."""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from flows.replay.tape_file import REQUIRED

if TYPE_CHECKING:
    from flows.replay.tape import BarSeries

_CHUNK_ROWS = 4096
_CHUNKS_HELD = 64


def number_texts(values: pl.Series) -> pl.Series:
    """Return each number in the shortest form that reads back as the same float.

    Zeros pad it to eight decimals; further digits stay: nothing is rounded.

    Example:
        >>> number_texts(pl.Series([60685.22, 1e-9, 0.1 + 0.2])).to_list()
        ['60685.22000000', '0.000000001', '0.30000000000000004']
    """
    texts = values.cast(pl.Float64).cast(pl.String)
    if texts.str.contains("e", literal=True).any():
        plain = [
            format(Decimal(text), "f") if text is not None and "e" in text else text
            for text in texts
        ]
        texts = pl.Series(texts.name, plain, dtype=pl.String)
    name = texts.name
    halves = texts.str.split_exact(".", 1).struct.unnest()
    whole, fraction = halves.columns
    padded = halves.select(
        pl.concat_str(whole, pl.lit("."), pl.col(fraction).fill_null("").str.pad_end(8, "0")).alias(
            name
        )
    )
    return padded.to_series()


def row_texts(frame: pl.DataFrame, interval_millis: int) -> list[str]:
    """Return one JSON row of twelve fields for each bar; fields without a value are null."""
    opened = frame.get_column("open_time").dt.epoch("ms")
    texts: dict[str, pl.Series] = {"open_millis": opened, "close_millis": opened + interval_millis}
    texts["close_millis"] -= 1
    for name in frame.columns:
        if name == "trade_count":
            texts[name] = frame.get_column(name).cast(pl.String).fill_null("null")
        elif name != "open_time":
            texts[name] = number_texts(frame.get_column(name))
    quoted = pl.DataFrame(texts)

    def text(name: str) -> pl.Expr:
        if name not in texts:
            return pl.lit("null")
        if name in (*REQUIRED, "trade_count"):
            return pl.col(name)
        return (pl.lit('"') + pl.col(name) + '"').fill_null("null")

    form = '[{},"{}","{}","{}","{}","{}",{},{},{},{},{},"0"]'
    rows = quoted.select(
        pl.format(
            form,
            "open_millis",
            *(text(name) for name in REQUIRED[1:]),
            "close_millis",
            text("quote_volume"),
            text("trade_count"),
            text("taker_buy_volume"),
            text("taker_buy_quote_volume"),
        )
    )
    return rows.to_series().to_list()


class KlineTexts:
    """Rows of series as text, rendered a chunk at a time and kept while in use."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[tuple[BarSeries, int], list[str]] = OrderedDict()

    def rows(self, series: BarSeries, start: int, stop: int) -> list[str]:
        """Return the texts of the rows ``start <= position < stop``."""
        rows: list[str] = []
        while start < stop:
            number, offset = divmod(start, _CHUNK_ROWS)
            taken = self._chunk(series, number)[offset : offset + stop - start]
            rows += taken
            start += len(taken)
        return rows

    def _chunk(self, series: BarSeries, number: int) -> list[str]:
        key = (series, number)
        if key in self._chunks:
            self._chunks.move_to_end(key)
            return self._chunks[key]
        part = series.frame.slice(number * _CHUNK_ROWS, _CHUNK_ROWS)
        chunk = self._chunks[key] = row_texts(part, series.interval_millis)
        if len(self._chunks) > _CHUNKS_HELD:
            self._chunks.popitem(last=False)
        return chunk
