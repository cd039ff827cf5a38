"""The built-in tape: seeded bars with the defects that real data has."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import TapeError
from contracts.names import CanonicalId, Timeframe, Venue
from contracts.spec import Time
from contracts.time import Span, iso, parse_time
from flows.replay.tape import BarSeries, Download, InstrumentRules, SeriesKey, Tape
from flows.replay.tape_file import BAR_COLUMNS, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Sequence

_MINUTE = timedelta(minutes=1)
_TIMEFRAMES = ("1m", "5m", "1h")
_FIRST_PRICES = {"BTC": 68_000.0, "ETH": 2_400.0}
# Amounts are whole numbers of these parts while bars are built, so that sums stay exact.
_PRICE_PARTS, _VOLUME_PARTS = 100, 100_000
_FLAT_RUNS = 6


@dataclass(frozen=True)
class Revision:
    """A 1m bar whose values differ from ``at`` on."""

    canonical_id: CanonicalId
    open_time: datetime
    at: datetime


@dataclass(frozen=True)
class Defects:
    """Where the generated bars are not as one would wish.

    Args:
        outage: The venue was down: rows of all symbols are missing.
        flat: Open times of minutes without trades: prices stand, amounts are zero.
        violation: The 1m bar whose high lies below its close.
        revision: The bar that is revised later.
    """

    outage: Span
    flat: dict[CanonicalId, tuple[datetime, ...]] = field(default_factory=dict)
    violation: tuple[CanonicalId, datetime] | None = None
    revision: Revision | None = None


class GeneratedTape(Tape):
    """Binance spot bars of 1m, 5m and 1h made from a seed: the same on every machine.

    Args:
        seed: What the numbers grow from.
        symbols: ccxt symbols; the first one carries the violation and the revision.
        start: First open time, on a full hour.
        days: Length.
        revised_at: When the revision comes; by default half a day before the end.

    Raises:
        TapeError: There is no symbol, or the span is too short to hold the defects.
    """

    def __init__(
        self,
        seed: int = 7,
        *,
        symbols: Sequence[str] = ("BTC/USDT", "ETH/USDT"),
        start: str | date | datetime = "2026-03-01",
        days: int = 4,
        revised_at: str | date | datetime | None = None,
    ) -> None:
        ids = [CanonicalId.parse(symbol) for symbol in symbols]
        first = parse_time(start, name="start")
        if not ids or days < 1 or Timeframe.parse("1h").floor(first) != first:
            raise TapeError(
                "a generated tape needs a symbol, a start on a full hour and at least one day",
                remedy="Give for instance symbols=['BTC/USDT'], start='2026-03-01', days=4",
            )
        self.span = Span(first, first + timedelta(days=days))
        revised = parse_time(revised_at or self.span.end - timedelta(hours=12), name="revised_at")
        self.defects = _placed_defects(seed, ids, self.span, revised)
        downloads: dict[SeriesKey, list[Download]] = {}
        for canonical_id in ids:
            downloads |= _downloads(seed, canonical_id, self.span, self.defects)
        parameters = [seed, [str(each) for each in ids], iso(first), days, iso(revised)]
        text = json.dumps(["generated 1", *parameters])
        super().__init__(f"replay:{hashlib.sha256(text.encode()).hexdigest()}", downloads)

    def rules(self, venue: Venue, canonical_id: CanonicalId) -> InstrumentRules | None:
        """Return the steps on which the generated prices and amounts lie."""
        return InstrumentRules("0.01000000", "0.00001000", "5.00000000")


def _placed_defects(seed: int, ids: list[CanonicalId], span: Span, revised_at: datetime) -> Defects:
    minutes = span.duration // _MINUTE
    hour = timedelta(hours=1)
    outage_start = span.start + (span.duration * 0.3) // hour * hour
    outage = Span(outage_start, outage_start + 2 * hour)
    flat = {}
    for canonical_id in ids:
        dice = random.Random(f"flat {seed} {canonical_id}")
        times = {
            span.start + (begin + step) * _MINUTE
            for begin in dice.sample(range(10, minutes // 4), _FLAT_RUNS)
            for step in range(dice.randint(1, 3))
        }
        flat[canonical_id] = tuple(sorted(times))
    # Off the last minute of any longer bar, in the third quarter, where no minute is flat.
    violation = span.start + (minutes * 11 // 20 // 5 * 5 + 2) * _MINUTE
    revision = span.end - timedelta(hours=15) + 7 * _MINUTE
    return Defects(outage, flat, (ids[0], violation), Revision(ids[0], revision, revised_at))


def _downloads(
    seed: int, canonical_id: CanonicalId, span: Span, defects: Defects
) -> dict[SeriesKey, list[Download]]:
    minutes = _minute_parts(seed, canonical_id, span, defects)
    versions: list[tuple[datetime | None, pl.DataFrame]] = [(None, minutes)]
    revision = defects.revision
    if revision is not None and revision.canonical_id == canonical_id:
        versions.append((revision.at, _revised(minutes, revision.open_time)))
    return {
        key: [Download(since, _series(key, parts)) for since, parts in versions]
        for key in (
            SeriesKey(Venue.BINANCE, canonical_id, Timeframe.parse(code)) for code in _TIMEFRAMES
        )
    }


def _series(key: SeriesKey, minutes: pl.DataFrame) -> BarSeries:
    return BarSeries(key, lambda: _bars(minutes, key.timeframe))


def _minute_parts(
    seed: int, canonical_id: CanonicalId, span: Span, defects: Defects
) -> pl.DataFrame:
    """Return 1m bars in whole parts of price and amount, outage and other defects included."""
    dice = random.Random(f"bars {seed} {canonical_id}")
    close = round(_FIRST_PRICES.get(canonical_id.base, 100.0) * _PRICE_PARTS)
    scale = max(1.0, close * 0.0004)
    flat = set(defects.flat.get(canonical_id, ()))
    rows: list[tuple[Any, ...]] = []
    for minute in range(span.duration // _MINUTE):
        opened = span.start + minute * _MINUTE
        row: tuple[Any, ...]
        if opened in flat:
            row = (opened, close, close, close, close, 0, 0, 0, 0, 0)
        else:
            row = (opened, *_traded_minute(dice, close, scale))
        if defects.violation == (canonical_id, opened):
            high = row[4] - 1
            row = (opened, row[1], high, min(row[3], high), *row[4:])
        close = row[4]
        if not defects.outage.contains(opened):
            rows.append(row)
    schema = {name: Time if name == "open_time" else pl.Int64() for name in BAR_COLUMNS}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _traded_minute(dice: random.Random, last: int, scale: float) -> tuple[int, ...]:
    opened = max(1, last + round(dice.gauss(0, scale / 20)))
    close = max(1, opened + round(dice.gauss(0, scale)))
    high = max(opened, close) + round(abs(dice.gauss(0, scale / 2)))
    low = max(1, min(opened, close) - round(abs(dice.gauss(0, scale / 2))))
    volume = 1 + round(dice.lognormvariate(0, 1) * 5 * _VOLUME_PARTS)
    taker = round(volume * dice.uniform(0.2, 0.8))
    mean = (opened + close + high + low) // 4
    trades = 1 + round(volume / _VOLUME_PARTS * dice.uniform(20, 60))
    return opened, high, low, close, volume, volume * mean, trades, taker, taker * mean


def _revised(minutes: pl.DataFrame, open_time: datetime) -> pl.DataFrame:
    """Return the bars with more volume and another close at ``open_time``."""
    chosen = pl.col("open_time") == open_time
    extra = _VOLUME_PARTS // 4
    price = pl.col("close") + 3
    changed = {
        "close": price,
        "high": pl.max_horizontal("high", price),
        "volume": pl.col("volume") + extra,
        "quote_volume": pl.col("quote_volume") + extra * price,
        "trade_count": pl.col("trade_count") + 4,
    }
    return minutes.with_columns(
        pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name)
        for name, value in changed.items()
    )


def _bars(minutes: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Resample whole parts exactly, then turn them into prices and amounts."""
    bars = minutes
    if timeframe.duration != _MINUTE:
        sums = ("volume", *OPTIONAL)
        bars = minutes.group_by(
            pl.col("open_time").dt.truncate(str(timeframe)), maintain_order=True
        ).agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            *(pl.col(name).sum() for name in sums),
        )
    parts = dict.fromkeys(("open", "high", "low", "close"), _PRICE_PARTS)
    parts |= dict.fromkeys(("volume", "taker_buy_volume"), _VOLUME_PARTS)
    quote = _PRICE_PARTS * _VOLUME_PARTS
    parts |= dict.fromkeys(("quote_volume", "taker_buy_quote_volume"), quote)
    # Polars divides by a constant as it multiplies by its inverse: 6527688 / 100 would be
    # 65276.880000000005. Python's division is correctly rounded.
    return bars.with_columns(
        pl.Series(name, [value / count for value in bars.get_column(name)], dtype=pl.Float64)
        for name, count in parts.items()
    )
