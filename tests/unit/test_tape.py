from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from replay_support import RECORDED, bars_frame, entry, needs_recorded, write_tape

from contracts.errors import TapeError
from contracts.names import CanonicalId, MarketType, Timeframe, Venue
from contracts.time import parse_time
from flows.replay.tape import Tape
from flows.replay.tape_file import BAR_COLUMNS, BAR_SCHEMA, REQUIRED

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

BTC = CanonicalId.parse("BTC/USDT")
ONE_MINUTE = Timeframe.parse("1m")
NOW = parse_time("2030-01-01")


def bars_of(tape: Tape, when: datetime = NOW) -> pl.DataFrame:
    return tape.bars(Venue.BINANCE, BTC, ONE_MINUTE, when)


def write(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_ipc(path, compression="lz4")


TIME_FORMS = {
    "aware us": pl.col("open_time"),
    "aware ns": pl.col("open_time").dt.cast_time_unit("ns"),
    "naive": pl.col("open_time").dt.replace_time_zone(None),
    "other zone": pl.col("open_time").dt.convert_time_zone("Asia/Seoul"),
    "ms": pl.col("open_time").dt.epoch("ms"),
}


@pytest.mark.parametrize("ending", [".feather", ".arrow", ".parquet", ".csv"])
@pytest.mark.parametrize("form", TIME_FORMS)
def test_every_file_type_and_form_of_time_reads_the_same(tmp_path, ending, form):
    frame = bars_frame("2026-03-01", 5)
    if ending == ".csv" and form == "other zone":
        stored = frame.with_columns(pl.col("open_time").dt.strftime("%Y-%m-%d %H:%M:%S+00:00"))
    else:
        stored = frame.with_columns(TIME_FORMS[form])
    write(stored, tmp_path / f"bars{ending}")
    tape = Tape.load(write_tape(tmp_path, entry(f"bars{ending}")))
    read = bars_of(tape)
    assert dict(read.schema) == BAR_SCHEMA
    assert_frame_equal(read.select(REQUIRED), frame, check_exact=True)
    assert read.select("trade_count", "quote_volume").null_count().row(0) == (5, 5)


def test_renamed_and_optional_columns_are_found(tmp_path):
    frame = bars_frame("2026-03-01", 3).rename({"open_time": "date"})
    frame = frame.with_columns(
        quote_volume=pl.Series([1.5, None, float("nan")]), trades=pl.Series([1.0, None, 3.0])
    )
    frame.write_parquet(tmp_path / "b.parquet")
    columns = '{ open_time = "date", trade_count = "trades" }'
    read = bars_of(Tape.load(write_tape(tmp_path, entry("b.parquet", columns=columns))))
    assert read.get_column("trade_count").to_list() == [1, None, 3]
    assert read.get_column("quote_volume").to_list() == [1.5, None, None]


def test_values_keep_every_bit_in_csv_and_decimal(tmp_path):
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 123456.78900000001]
    frame = bars_frame("2026-03-01", 4).with_columns(volume=pl.Series(values))
    frame.write_csv(tmp_path / "b.csv")
    read = bars_of(Tape.load(write_tape(tmp_path, entry("b.csv"))))
    assert read.get_column("volume").to_list() == values
    decimal = bars_frame("2026-03-01", 2).with_columns(
        close=pl.Series(["65276.88", "0.1"]).cast(pl.Decimal(38, 18))
    )
    decimal.write_parquet(tmp_path / "b.parquet")
    read = bars_of(Tape.load(write_tape(tmp_path, entry("b.parquet"))))
    assert read.get_column("close").to_list() == [65276.88, 0.1]


def test_undated_files_of_a_series_are_one_sorted_series(tmp_path):
    frame = bars_frame("2026-03-01", 10)
    frame[6:].write_parquet(tmp_path / "late.parquet")
    frame[:7].reverse().write_ipc(tmp_path / "early.feather", compression="uncompressed")
    tape = Tape.load(write_tape(tmp_path, entry("late.parquet"), entry("early.feather")))
    assert_frame_equal(bars_of(tape).select(REQUIRED), frame, check_exact=True)


def test_the_clock_chooses_the_download(tmp_path):
    first, second = bars_frame("2026-03-01", 3), bars_frame("2026-03-01", 5, first=200.0)
    first.write_parquet(tmp_path / "a.parquet")
    second.write_parquet(tmp_path / "b.parquet")
    tape = Tape.load(
        write_tape(
            tmp_path,
            entry("b.parquet", downloaded="2026-03-20"),
            entry("a.parquet", downloaded="2026-03-10"),
        )
    )
    assert bars_of(tape, parse_time("2026-03-09T23:59")).height == 0
    assert bars_of(tape, parse_time("2026-03-10")).height == 3
    assert bars_of(tape, parse_time("2026-03-19T23:59")).item(0, "open") == 100.0
    assert bars_of(tape, parse_time("2026-03-20")).item(0, "open") == 200.0
    assert tape.last_close() == parse_time("2026-03-01T00:05")


def test_series_origin_last_close_and_kept_sections(tmp_path, caplog):
    bars_frame("2026-03-01", 3).write_parquet(tmp_path / "a.parquet")
    caplog.set_level("INFO")
    text = [
        entry("a.parquet"),
        entry("a.parquet", symbol="ETH/USDT:USDT", market="perp", timeframe="1h"),
        entry("a.parquet", venue="okx", timeframe="5m"),
        entry("a.parquet", venue="binanceus"),
        entry("a.parquet", timeframe="1w"),
        '[[funding_rates]]\nvenue = "nobody"\nfile = "absent.parquet"\n',
        '[[open_interest]]\nvenue = "x"\n',
    ]
    tape = Tape.load(write_tape(tmp_path, *text))
    digest = hashlib.sha256((tmp_path / "tape.toml").read_bytes()).hexdigest()
    assert tape.origin == f"replay:{digest}"
    assert tape.bar_series(Venue.BINANCE, MarketType.SPOT) == [(BTC, ONE_MINUTE)]
    [(perp, _)] = tape.bar_series(Venue.BINANCE, MarketType.PERP)
    assert str(perp) == "ETH-USDT-PERP"
    assert set(tape.sections) == {"funding_rates", "open_interest"}
    assert [kept["venue"] for kept in tape.unserved] == ["binanceus", "binance"]
    assert caplog.messages == ["tape.bars_unserved"] * 2
    assert tape.last_close() == parse_time("2026-03-01T01:02")
    assert tape.last_close(Venue.OKX) == parse_time("2026-03-01T00:07")
    assert tape.last_close(Venue.BINANCE, MarketType.SPOT) == parse_time("2026-03-01T00:03")
    with pytest.raises(TapeError, match=r"no bars of kraken.*binance, binanceus, okx"):
        tape.last_close(Venue.KRAKEN)


def test_the_same_download_is_the_same_object(tmp_path):
    bars_frame("2026-03-01", 3).write_parquet(tmp_path / "a.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("a.parquet")))
    asked = (Venue.BINANCE, BTC, ONE_MINUTE)
    assert tape.series(*asked, NOW) is tape.series(*asked, parse_time("2026-03-01"))
    assert tape.series(Venue.BINANCE, BTC, Timeframe.parse("1h"), NOW) is None
    assert bars_of(tape).columns == list(BAR_COLUMNS)


BAD_ENTRIES = {
    "venue": (entry("a.parquet", venue="binanse"), "'binanse' is not a venue.*binance"),
    "symbol": (entry("a.parquet", symbol="BTC USDT"), "BTC USDT"),
    "timeframe": (entry("a.parquet", timeframe="7m"), "'7m' is not a timeframe"),
    "market": (entry("a.parquet", market="perp"), "market 'perp' does not go with"),
    "file": (entry("gone.parquet"), r"gone\.parquet is missing"),
    "kind": (entry("tape.toml"), r"tape\.toml is of an unknown file type"),
    "column": (entry("a.parquet", columns='{ open = "first" }'), "no column 'first' for open"),
    "optional": (entry("a.parquet", columns='{ trade_count = "n" }'), "no column 'n' for trade"),
    "name": (entry("a.parquet", columns='{ opened = "open" }'), "name 'opened', which bars"),
    "columns": (entry("a.parquet", columns="3"), "columns is not a table"),
    "downloaded": (entry("a.parquet", downloaded="soon"), "downloaded 'soon' is not a time"),
    "no symbol": ('[[bars]]\nvenue = "binance"\ntimeframe = "1m"\n', "has no symbol"),
    "torn": (entry("torn.parquet"), r"torn\.parquet cannot be read as parquet"),
    "torn ipc": (entry("torn.feather"), r"torn\.feather cannot be read as ipc"),
    "empty csv": (entry("empty.csv"), r"empty\.csv cannot be read as csv"),
    "section": ("bars = 3\n", "'bars' in .* is not a list of tables"),
    "toml": ("[[bars\n", "is not toml"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_a_bad_tape_is_refused_by_name(tmp_path, case):
    text, message = BAD_ENTRIES[case]
    bars_frame("2026-03-01", 3).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:300])
    (tmp_path / "torn.feather").write_bytes(b"ARROW1 and no more")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(TapeError, match=message) as caught:
        Tape.load(write_tape(tmp_path, text))
    assert caught.value.remedy


def test_a_folder_without_tape_is_refused(tmp_path):
    with pytest.raises(TapeError, match=r"tape\.toml cannot be read"):
        Tape.load(tmp_path)


BAD_ROWS = {
    "null": ({"volume": [1.0, None, 1.0]}, "1 nulls in 'volume'"),
    "nan": ({"close": [1.0, 2.0, float("nan")]}, "1 nulls in 'close'"),
    "no number": ({"low": ["1", "x", "3"]}, "String in 'low', which does not read as low"),
    "boolean": ({"high": [True, False, True]}, "Boolean in 'high'"),
    "no time": ({"open_time": [1.5, 2.5, 3.5]}, "Float64 in 'open_time'"),
    "time text": ({"open_time": ["now", "then", "soon"]}, "String in 'open_time'"),
    "count": ({"trade_count": [1.0, 2.5, 3.0]}, "Float64 in 'trade_count'"),
    "twice": (
        {"open_time": [1_772_323_200_000, 1_772_323_200_000, 1_772_323_260_000]},
        "2 rows share an open_time and differ, first 2026-03-01",
    ),
    "seconds": ({"open_time": [1_772_323_200 + n for n in range(3)]}, "integers in ms"),
    "microseconds": ({"open_time": [1_772_323_200_000_000 + n for n in range(3)]}, "in ms"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused_by_file_and_column(tmp_path, case):
    changed, message = BAD_ROWS[case]
    frame = bars_frame("2026-03-01", 3).with_columns(
        pl.Series(name, values) for name, values in changed.items()
    )
    frame.write_parquet(tmp_path / "bad.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("bad.parquet")))
    with pytest.raises(TapeError, match=message) as caught:
        bars_of(tape)
    assert caught.value.file.endswith("bad.parquet")
    assert caught.value.column == next(iter(changed))


@needs_recorded
@pytest.mark.recorded
def test_the_recorded_tape_loads_and_reads_value_for_value():
    tape = Tape.load(RECORDED)
    series = [f"{each} {frame}" for each, frame in tape.bar_series(Venue.BINANCE, MarketType.SPOT)]
    assert series == [
        "BTC-EUR-SPOT 1m",
        "BTC-USDT-SPOT 1m",
        "BTC-USDT-SPOT 5m",
        "BTC-USDT-SPOT 1h",
        "ETH-BTC-SPOT 1h",
        "ETH-USDT-SPOT 1m",
        "ETH-USDT-SPOT 5m",
        "ETH-USDT-SPOT 1h",
    ]
    folder = RECORDED / "bars"
    stored = [
        pl.read_ipc(folder / "binance_spot_long/BTC_USDT-1h.feather"),
        pl.read_ipc(folder / "binance_spot_2026-03_04/BTC_USDT-1h.feather"),
    ]
    expected = pl.concat(stored).rename({"date": "open_time"})
    read = tape.bars(Venue.BINANCE, BTC, Timeframe.parse("1h"), NOW).select(REQUIRED)
    assert_frame_equal(
        read, expected.with_columns(pl.col("open_time").dt.cast_time_unit("us")), check_exact=True
    )
    assert str(tape.last_close(Venue.BINANCE, MarketType.SPOT)) == "2026-04-24 13:15:00+00:00"


@needs_recorded
@pytest.mark.recorded
def test_every_recorded_series_reads():
    tape = Tape.load(RECORDED)
    for venue in Venue:
        for market_type in MarketType:
            for canonical_id, timeframe in tape.bar_series(venue, market_type):
                bars = tape.bars(venue, canonical_id, timeframe, NOW)
                assert bars.get_column("open_time").is_sorted()
                assert bars.height
