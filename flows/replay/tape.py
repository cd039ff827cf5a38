"""A tape: recorded or generated bars, series by series, as the venue answered at a time.

A tape on disk is a folder with a ``tape.toml``::

    [[bars]]
    venue = "binance"
    market = "spot"                       # spot or perp
    symbol = "BTC/USDT"                   # in ccxt's spelling
    timeframe = "1h"
    file = "bars/BTC_USDT-1h.feather"     # arrow ipc, parquet or csv, relative to the folder
    columns = { open_time = "date" }      # tape name = name in the file, where they differ
    downloaded = "2026-01-05"             # optional

Several files of a series without ``downloaded`` are one series. With it, the venue answers
with the latest files downloaded at or before the clock. Other sections (``trades``,
``funding_rates``, ...) are kept in ``Tape.sections`` unread.
"""

from __future__ import annotations

import hashlib
import logging
import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from contracts.errors import InvalidTimeError, RequestError, TapeError
from contracts.names import CanonicalId, MarketType, Timeframe, Venue, suggest
from contracts.time import EPOCH, parse_time
from flows.replay.tape_file import BAR_COLUMNS, BAR_SCHEMA, bar_columns, read_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

# Venues that recordings name and that Tidemark has no adapter for: their bars are kept aside,
# while any other unknown name is taken for a slip of the pen and refused.
_FOREIGN_VENUES = frozenset({
    "ascendex", "backpack", "binanceus", "bingx", "bitfinex", "bitflyer", "bitget", "bithumb",
    "bitmart", "bitmex", "bitso", "bitstamp", "bitvavo", "blofin", "bullish", "coinex",
    "cryptocom", "cryptocompare", "deribit", "dydx", "gate", "gateio", "gemini", "hashkey",
    "htx", "huobi", "hyperliquid", "kraken_futures", "krakenfutures", "kucoin", "kucoinfutures",
    "lbank", "mexc", "okcoin", "phemex", "poloniex", "upbit", "whitebit", "woo", "xt",
})  # fmt: skip
_FOREIGN_TIMEFRAMES = frozenset({"1s", "3d", "1w", "1M"})


class SeriesKey(NamedTuple):
    """What one series of bars is of."""

    venue: Venue
    canonical_id: CanonicalId
    timeframe: Timeframe


@dataclass(frozen=True)
class InstrumentRules:
    """Steps and minimum of a listing, in the venue's text form."""

    tick_size: str
    lot_size: str
    min_notional: str


class BarSeries:
    """The bars of one series as one download holds them: loaded when first looked at."""

    def __init__(self, key: SeriesKey, load: Callable[[], pl.DataFrame]) -> None:
        self.key = key
        self._load = load

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows, sorted by open_time; columns that the tape lacks are left out."""
        return self._load()

    @cached_property
    def open_millis(self) -> pl.Series:
        """The open times in ms."""
        return self.frame.get_column("open_time").dt.epoch("ms")

    @property
    def interval_millis(self) -> int:
        """The length of a bar in ms."""
        return self.key.timeframe.micros // 1000

    def position(self, millis: int, *, after: bool = False) -> int:
        """Return how many bars open before ``millis``, or, with ``after``, at or before it."""
        return int(self.open_millis.search_sorted(millis, side="right" if after else "left"))


class Download(NamedTuple):
    """Bars that the venue answers with from a time on; None means from ever."""

    since: datetime | None
    series: BarSeries


class Tape:
    """Series of bars, each in one or more downloads.

    Args:
        origin: ``replay:<sha256>`` of what the tape was made from.
        downloads: The downloads of each series, in any order.
        sections: What else the tape holds, unread.
        unserved: Entries of bars of venues or timeframes that Tidemark does not know.
    """

    def __init__(
        self,
        origin: str,
        downloads: Mapping[SeriesKey, Iterable[Download]],
        *,
        sections: Mapping[str, list[dict[str, Any]]] | None = None,
        unserved: Iterable[dict[str, Any]] = (),
    ) -> None:
        self.origin = origin
        self.sections = dict(sections or {})
        self.unserved = tuple(unserved)
        self._downloads = {
            key: sorted(held, key=lambda download: download.since or EPOCH)
            for key, held in downloads.items()
        }

    @classmethod
    def load(cls, folder: Path) -> Tape:
        """Open the tape in ``folder``; bars are read when first asked for.

        Raises:
            TapeError: tape.toml or a file of bars is missing, unreadable, lacks a column or
                names what nobody knows. Errors in the rows of a file come when it is read.
        """
        path = folder / "tape.toml"
        try:
            text = path.read_bytes()
            content = tomllib.loads(text.decode())
        except OSError as error:
            raise TapeError(
                f"{path} cannot be read: {error.strerror}",
                remedy="A tape is a folder with a tape.toml",
                file=str(path),
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TapeError(
                f"{path} is not toml: {error}", remedy="Mend that place", file=str(path)
            ) from error
        sections = _sections(path, content)
        parts: dict[SeriesKey, dict[datetime | None, list[_Part]]] = {}
        unserved = []
        for number, entry in enumerate(sections.pop("bars", []), start=1):
            where = f"bars entry {number} of {path}"
            if _is_foreign(entry, where):
                unserved.append(entry)
                _log.info("tape.bars_unserved", extra={"entry": entry})
                continue
            key, part, since = _bars_entry(folder, entry, where)
            parts.setdefault(key, {}).setdefault(since, []).append(part)
        downloads = {
            key: [Download(since, BarSeries(key, _joiner(held))) for since, held in dated.items()]
            for key, dated in parts.items()
        }
        origin = f"replay:{hashlib.sha256(text).hexdigest()}"
        return cls(origin, downloads, sections=sections, unserved=unserved)

    def bar_series(
        self, venue: Venue, market_type: MarketType
    ) -> list[tuple[CanonicalId, Timeframe]]:
        """Return what series of bars the tape has, sorted."""
        return sorted(
            (key.canonical_id, key.timeframe)
            for key in self._downloads
            if key.venue is venue and key.canonical_id.market_type is market_type
        )

    def series(
        self, venue: Venue, canonical_id: CanonicalId, timeframe: Timeframe, at: datetime
    ) -> BarSeries | None:
        """Return the series as the venue holds it at ``at``: the same object for the same download.

        None when the tape lacks the series, or holds only later downloads of it.
        """
        held = self._downloads.get(SeriesKey(venue, canonical_id, timeframe), [])
        current = [entry for entry in held if entry.since is None or entry.since <= at]
        return current[-1].series if current else None

    def bars(
        self, venue: Venue, canonical_id: CanonicalId, timeframe: Timeframe, at: datetime
    ) -> pl.DataFrame:
        """Return the bars that the venue holds at ``at``, values as recorded.

        Shape: one row per bar, sorted by open_time; columns that the tape lacks are null.
        Time: ``at`` chooses the download. Its rows are all returned, also those that open
            later than ``at``: the twin of a venue hides them, not the tape.
        """
        series = self.series(venue, canonical_id, timeframe, at)
        frame = pl.DataFrame(schema=BAR_SCHEMA) if series is None else series.frame
        missing = [name for name in BAR_COLUMNS if name not in frame.columns]
        return frame.with_columns(
            pl.lit(None, dtype=BAR_SCHEMA[name]).alias(name) for name in missing
        ).select(BAR_COLUMNS)

    def last_close(
        self, venue: Venue | None = None, market_type: MarketType | None = None
    ) -> datetime:
        """Return the latest close of all bars, of one venue or market type where given.

        Raises:
            TapeError: There are no such bars.
        """
        closes = []
        for key, held in self._downloads.items():
            if venue not in (None, key.venue):
                continue
            if market_type not in (None, key.canonical_id.market_type):
                continue
            for download in held:
                frame = download.series.frame
                if frame.height:
                    opened: datetime = frame.item(-1, "open_time")
                    closes.append(parse_time(opened) + key.timeframe.duration)
        if not closes:
            what = " ".join(str(part) for part in (venue, market_type) if part) or "any venue"
            raise TapeError(
                f"the tape has no bars of {what}",
                remedy=f"Name such bars in tape.toml; it has bars of {self._venues()}",
            )
        return max(closes)

    def rules(self, venue: Venue, canonical_id: CanonicalId) -> InstrumentRules | None:
        """Return the steps of a listing, or None where the tape holds none."""
        return None

    def _venues(self) -> str:
        names = {str(key.venue) for key in self._downloads}
        names |= {str(entry.get("venue")) for entry in self.unserved}
        return ", ".join(sorted(names)) or "no venue"


class _Part(NamedTuple):
    path: Path
    columns: dict[str, str]


def _sections(path: Path, content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    for name, entries in content.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise TapeError(
                f"{name!r} in {path} is not a list of tables",
                remedy=f"Write each entry under [[{name}]]",
                file=str(path),
            )
    return dict(content)


def _is_foreign(entry: dict[str, Any], where: str) -> bool:
    venue = _text(entry, "venue", where).strip().lower()
    timeframe = _text(entry, "timeframe", where).strip()
    return venue in _FOREIGN_VENUES or timeframe in _FOREIGN_TIMEFRAMES


def _bars_entry(
    folder: Path, entry: dict[str, Any], where: str
) -> tuple[SeriesKey, _Part, datetime | None]:
    symbol, market = _text(entry, "symbol", where), _text(entry, "market", where)
    try:
        venue = Venue.parse(_text(entry, "venue", where))
        canonical_id = CanonicalId.parse(symbol)
        timeframe = Timeframe.parse(_text(entry, "timeframe", where))
    except RequestError as error:
        raise TapeError(f"{where}: {error.message}", remedy=error.remedy, entry=entry) from error
    markets = (MarketType.SPOT.value, MarketType.PERP.value)
    if market not in markets or canonical_id.market_type != market:
        raise TapeError(
            f"{where}: market {market!r} does not go with symbol {symbol!r}",
            remedy=f"{suggest(market, markets)} A perp is spelled BTC/USDT:USDT",
            entry=entry,
        )
    names = entry.get("columns", {})
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise TapeError(
            f"{where}: columns is not a table of names",
            remedy='Write columns = { open_time = "date" }',
            entry=entry,
        )
    path = folder / _text(entry, "file", where)
    part = _Part(path, bar_columns(path, names))
    return SeriesKey(venue, canonical_id, timeframe), part, _downloaded(entry, where)


def _text(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TapeError(
            f"{where} has no {name}", remedy=f'Give it {name} = "..."', entry=entry, column=name
        )
    return value


def _downloaded(entry: dict[str, Any], where: str) -> datetime | None:
    value = entry.get("downloaded")
    if value is None:
        return None
    try:
        if isinstance(value, datetime) and value.tzinfo is None:
            return parse_time(value.isoformat())
        if isinstance(value, (str, date)):
            return parse_time(value, name="downloaded")
    except InvalidTimeError as error:
        raise TapeError(f"{where}: {error.message}", remedy=error.remedy, entry=entry) from error
    raise TapeError(
        f"{where}: downloaded is not a date", remedy='Write downloaded = "2026-01-05"', entry=entry
    )


def _joiner(parts: list[_Part]) -> Callable[[], pl.DataFrame]:
    def load() -> pl.DataFrame:
        frames = [read_bars(part.path, part.columns) for part in parts]
        joined = pl.concat(frames, how="diagonal") if len(frames) > 1 else frames[0]
        held = [name for name in BAR_COLUMNS if name in joined.columns]
        if not joined.get_column("open_time").is_sorted():
            joined = joined.sort("open_time", maintain_order=True)
        return _without_copies(joined.select(held).rechunk(), parts)

    return load


def _without_copies(frame: pl.DataFrame, parts: list[_Part]) -> pl.DataFrame:
    """Drop equal copies of a bar in a sorted frame; two different ones are an error."""
    times = frame.get_column("open_time")
    if not (times == times.shift(1)).any():
        return frame
    unique = frame.unique(maintain_order=True)
    doubled = unique.get_column("open_time").is_duplicated()
    if doubled.any():
        first = unique.filter(doubled).item(0, "open_time")
        files = ", ".join(dict.fromkeys(str(part.path) for part in parts))
        raise TapeError(
            f"{files}: {int(doubled.sum())} rows share an open_time and differ, first {first}",
            remedy="Keep one of them, or date the files with `downloaded`",
            file=files,
            column="open_time",
        )
    return unique
