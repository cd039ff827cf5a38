"""The SDK's questions: answered, or refused with a remedy."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from kernel_support import BTC, ETH, KNOWN, MINUTE, START, US, Kernel, Row, series

import lake
from contracts.errors import (
    BeforeFirstKnowledgeError,
    InvalidNameError,
    InvalidSpanError,
    InvalidTimeError,
    LakeFormatError,
    LakeNotFoundError,
    LakeOriginError,
    RequestError,
    SettingsError,
    StoreUnavailableError,
    UnknownSnapshotError,
    UnknownStreamError,
    UnknownTableError,
    UnknownTimeframeError,
)
from contracts.tables import BARS
from lake.root import init_lake
from lake.store import Store


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.publish([*series(range(10)), *series(range(5), instrument=ETH)])
    made.observe(0, 10)
    made.step(hours=1)
    made.publish([Row(3, 200.0)])
    return made


def test_no_lake_is_no_lake_and_none_is_made(tmp_path):
    with pytest.raises(LakeNotFoundError, match="lake init"):
        lake.open(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeNotFoundError):
        lake.open(tmp_path / "file")
    with pytest.raises(StoreUnavailableError):
        init_lake(Store(tmp_path / "file", fsync=False), origin="live")


@pytest.mark.parametrize("sign", "=*?[#%")
def test_a_root_that_readers_take_for_a_pattern_is_refused(tmp_path, sign):
    with pytest.raises(SettingsError, match="holds"):
        Store(tmp_path / f"a{sign}b")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": "x"}', "\udcff"])
def test_a_broken_lake_json_is_named(kernel, text):
    (kernel.root / "lake.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LakeFormatError, match=r"lake\.json"):
        kernel.lake()


def test_a_newer_format_is_refused(kernel):
    path = kernel.root / "lake.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(LakeFormatError, match="format 2"):
        kernel.lake()


def test_another_origin_is_refused_and_the_same_is_not(kernel):
    assert init_lake(kernel.store, origin="live") == kernel.lake().info
    with pytest.raises(LakeOriginError, match="never mix"):
        Kernel(kernel.root, origin="replay:abc")


REFUSED = {
    "unknown instrument": ({"instruments": "BTC-USD-SPOT.BINANCE"}, UnknownStreamError, BTC),
    "other timeframe": ({"timeframe": "1h"}, UnknownStreamError, "Known: none"),
    "no match": ({"instruments": "XRP-*"}, UnknownStreamError, BTC),
    "canonical id": ({"instruments": "BTC-USDT-SPOT"}, InvalidNameError, BTC),
    "no timeframe": ({"timeframe": "1min"}, UnknownTimeframeError, "1m"),
    "no column": ({"columns": ["opn"]}, RequestError, "open"),
    "column twice": ({"columns": ["open", "open"]}, RequestError, "once"),
    "naive time": ({"start": datetime(2026, 3, 24)}, InvalidTimeError, "time zone"),  # noqa: DTZ001
    "no time": ({"known_at": "yesterday"}, InvalidTimeError, "2026-03-24"),
    "backwards": ({"start": "2026-03-25", "end": "2026-03-24"}, InvalidSpanError, "half-open"),
    "empty span": ({"start": "2026-03-24", "end": "2026-03-24"}, InvalidSpanError, "half-open"),
    "too early": ({"known_at": KNOWN - US}, BeforeFirstKnowledgeError, "available_at"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_answered_is_refused_with_a_remedy(kernel, name):
    asked, expected, remedy = REFUSED[name]
    with pytest.raises(expected) as error:
        kernel.lake().bars(**{"instruments": BTC, "timeframe": "1m"} | asked)
    assert remedy in error.value.remedy
    assert "\n" not in str(error.value)


def test_a_list_that_holds_one_unknown_name_is_refused(kernel):
    with pytest.raises(UnknownStreamError, match="XRP"):
        kernel.lake().bars([BTC, "XRP-USDT-SPOT.BINANCE"], timeframe="1m")


def test_unknown_tables_and_snapshots(kernel):
    with pytest.raises(UnknownTableError, match=r"silver\.bars"):
        kernel.lake().scan("silver.bar")
    first = kernel.snapshot().snapshot_id
    for wrong in (f"{first[:-1]}x", "", "../lake", "2026-01-01-00000000"):
        with pytest.raises(UnknownSnapshotError, match=first):
            kernel.lake(snapshot=wrong)
    with pytest.raises(RequestError, match="Only a snapshot"):
        kernel.lake(verify=True)


def test_spans_are_half_open_and_dates_are_utc(kernel):
    lk = kernel.lake()
    asked = {"start": "2026-03-24T00:02", "end": "2026-03-24T01:05:00+01:00"}
    assert lk.bars(BTC, timeframe="1m", **asked).collect()["open_time"].to_list() == [
        START + minute * MINUTE for minute in (2, 3, 4)
    ]


def test_a_known_stream_is_empty_outside_its_bars_not_unknown(kernel):
    """ETH has bars and no observation in the ledger."""
    for name in (BTC, ETH):
        assert kernel.lake().bars(name, timeframe="1m", start="2027-01-01").collect().is_empty()
    kernel.observe(0, 5, instrument="XRP-USDT-SPOT.BINANCE")
    found = kernel.lake().bars("XRP-USDT-SPOT.BINANCE", timeframe="1m").collect()
    assert found.is_empty()
    assert found.schema == BARS.schema


def test_patterns_lists_and_doubles(kernel):
    lk = kernel.lake()
    both = lk.bars([BTC, ETH], timeframe="1m").collect()
    assert both.height == 15
    for asked in (["*"], ["*-USDT-SPOT.BINANCE", BTC], [ETH, BTC, BTC], ["[BE]T[CH]-*"]):
        assert lk.bars(asked, timeframe="1m").collect().equals(both)
    with pytest.raises(RequestError, match="No instrument was named"):
        lk.bars([], timeframe="1m")
    assert lk.bars(BTC, timeframe="1m", columns="close").collect().columns == ["close"]


def test_columns_come_in_the_order_asked(kernel):
    found = kernel.lake().bars(BTC, timeframe="1m", columns=["close", "open_time"]).collect()
    assert found.columns == ["close", "open_time"]


def test_known_at_shows_each_past_and_names_the_first(kernel):
    lk = kernel.lake()
    late = KNOWN + timedelta(hours=1)
    for moment, close in ((KNOWN, 100.53), (late - US, 100.53), (late, 200.0)):
        bars = lk.bars(BTC, timeframe="1m", known_at=moment).collect()
        assert bars.height == 10
        assert bars["close"][3] == close
        assert bars.equals(bars.sort("open_time"))
    with pytest.raises(BeforeFirstKnowledgeError) as error:
        lk.bars(ETH, timeframe="1m", known_at=KNOWN - US)
    assert error.value.first_known == KNOWN


def test_one_stream_unknown_then_refuses_the_whole_question(kernel):
    kernel.publish(series(range(3), instrument="XRP-USDT-SPOT.BINANCE"))
    with pytest.raises(BeforeFirstKnowledgeError, match="XRP"):
        kernel.lake().bars("*", timeframe="1m", known_at=KNOWN)


def test_available_at_is_the_close_and_the_lag(kernel):
    lk = kernel.lake()
    closes = START + 5 * MINUTE + timedelta(seconds=5)
    assert lk.bars(BTC, timeframe="1m", available_at=closes).collect().height == 5
    assert lk.bars(BTC, timeframe="1m", available_at=closes - US).collect().height == 4
    kept = lk.bars(BTC, timeframe="1m", available_at=closes, columns=["close"]).collect()
    assert kept.columns == ["close"]


def test_many_instruments_are_read_in_one_piece_alike(lake_root, monkeypatch):
    kernel = Kernel(lake_root)
    names = [f"A{number:02d}-USDT-SPOT.BINANCE" for number in range(12)]
    for name in reversed(names):
        kernel.publish(series(range(3), instrument=name))
    kernel.step(hours=1)
    kernel.publish([Row(1, 5.0, instrument=name) for name in names[::2]])
    lk = kernel.lake()
    pieces = [lk.bars("*", timeframe="1m", known_at=at).collect() for at in (None, KNOWN)]
    monkeypatch.setattr("lake.reader._PIECEWISE", 4)
    whole = [lk.bars("*", timeframe="1m", known_at=at).collect() for at in (None, KNOWN)]
    for piece, one in zip(pieces, whole, strict=True):
        assert one.equals(piece)
        assert one.equals(one.sort("instrument_id", "open_time"))
        assert one.height == 36
    assert not whole[0].equals(whole[1])


def test_the_ledger_tiles_what_is_asked(kernel):
    lk = kernel.lake()
    found = lk.ledger(BTC, timeframe="1m", start=START - MINUTE, end=START + 20 * MINUTE)
    assert found["state"].to_list() == ["unfetched", "present", "unfetched"]
    assert (found["span_start"][0], found["span_end"][-1]) == (START - MINUTE, START + 20 * MINUTE)
    assert lk.ledger(known_at=KNOWN - US).is_empty()
    with pytest.raises(InvalidSpanError):
        lk.ledger(BTC, start="2026-03-25", end="2026-03-24")
    assert lk.ledger(start=START + 30 * MINUTE).is_empty()


def test_the_heads_move_and_a_lake_knows_where_it_is(kernel):
    lk = kernel.lake()
    kernel.publish([Row(50, 1.0)])
    assert lk.bars(BTC, timeframe="1m").collect().height == 11
    assert (lk.root, lk.snapshot_id, lk.manifest) == (str(kernel.root), None, None)
    assert lk.info.origin == "live"
    assert lk.scan("silver.instruments").collect().is_empty()
    assert lk.instruments("binance", known_at=datetime(2026, 4, 1, tzinfo=UTC)).collect().is_empty()
