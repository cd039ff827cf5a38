"""Bars in the form of Binance: one JSON row per bar, numbers exact, padded to eight decimals."""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from flows.replay.tape_file import OPTIONAL, REQUIRED

if TYPE_CHECKING:
    from flows.replay.tape import BarSeries

_CHUNK_ROWS = 2048
_CHUNKS_HELD = 128


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
            text if text is None or "e" not in text else _without_power(text) for text in texts
        ]
        texts = pl.Series(texts.name, plain, dtype=pl.String)
    text = pl.col(texts.name)
    to_eighth = text.str.find(".", literal=True) + 9
    padded = (text + "0000000").str.head(pl.max_horizontal(text.str.len_bytes(), to_eighth))
    return texts.to_frame().select(padded).to_series()


def row_texts(frame: pl.DataFrame, interval_millis: int) -> list[str]:
    """Return one JSON row of twelve fields for each bar; fields without a value are null."""
    opened = frame.get_column("open_time").dt.epoch("ms")
    texts = [opened.alias("open_millis"), (opened + (interval_millis - 1)).alias("close_millis")]
    for name in frame.columns:
        if name == "trade_count":
            texts.append(frame.get_column(name).cast(pl.String))
        elif name != "open_time":
            texts.append(number_texts(frame.get_column(name)))
    held = pl.DataFrame(texts)

    def optional(name: str) -> pl.Expr:
        if name not in held.columns:
            return pl.lit("null")
        text = pl.col(name) if name == "trade_count" else '"' + pl.col(name) + '"'
        return text.fill_null("null")

    row = pl.format(
        '[{},"{}","{}","{}","{}","{}",{},{},{},{},{},"0"]',
        "open_millis",
        *REQUIRED[1:],
        "close_millis",
        *(optional(name) for name in OPTIONAL),
    )
    return held.select(row).to_series().to_list()


def _without_power(text: str) -> str:
    plain = format(Decimal(text), "f")
    return plain if "." in plain else f"{plain}.0"


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
