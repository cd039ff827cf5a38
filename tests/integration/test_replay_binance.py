"""The twin of Binance spot against recorded answers of the venue and against its tape."""

from __future__ import annotations

import gzip
import json
import re
from decimal import Decimal
from itertools import pairwise

import aiohttp
import polars as pl
import pytest
from replay_support import (
    DOCUMENTED_KLINE,
    MINUTE,
    RECORDED,
    Client,
    bars_frame,
    entry,
    ms,
    needs_recorded,
    write_tape,
)

from contracts.errors import TapeError
from contracts.names import CanonicalId, Timeframe, Venue
from contracts.time import parse_time, to_millis
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from flows.replay.tape import Tape

BTC = CanonicalId.parse("BTC/USDT")
FIXTURES = RECORDED / "fixtures" / "nautilus"
NUMBER = re.compile(r"\d+\.\d{8}")
FIELDS = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume")
FIELDS += ("trade_count", "taker_buy_volume", "taker_buy_quote_volume", "ignore")


@pytest.fixture(scope="module")
def generated():
    return GeneratedTape(days=2, revised_at="2026-03-02T20:00")


@pytest.fixture
async def twin(generated):
    async with (
        ReplayExchange(generated, limits=False) as exchange,
        aiohttp.ClientSession() as session,
    ):
        client = Client(exchange.base_url, session)
        client.exchange = exchange
        yield client


def shape(value):
    """Return the types of a JSON value, numbers in text by their form."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    if isinstance(value, str) and re.fullmatch(r"\d+\.\d+", value):
        return "decimals" if NUMBER.fullmatch(value) else value
    return type(value).__name__


def recorded(name, documented):
    path = FIXTURES / name
    return json.loads(path.read_text()) if path.is_file() else documented


async def test_ping_and_time_answer_as_recorded(twin):
    assert await twin.json("/api/v3/ping") == recorded("binance/ping_response.json", {})
    documented = {"serverTime": 1499827319559}
    answer = await twin.json("/api/v3/time")
    assert shape(answer) == shape(recorded("binance/server_time_response.json", documented))
    assert answer["serverTime"] == ms("2026-03-03T00:01")


async def test_klines_have_the_form_of_recorded_ones(twin):
    names = ("binance_py/http_spot_market_klines.json", "binance/klines_response.json")
    pages = [[DOCUMENTED_KLINE], *(recorded(name, [DOCUMENTED_KLINE]) for name in names)]
    mine = await twin.klines(limit=1000)
    forms = {json.dumps(shape(row)) for page in pages for row in page}
    assert {json.dumps(shape(row)) for row in mine} == forms
    for page in (pages[1], mine):
        opened = [row[0] for row in page]
        assert opened == sorted(opened)
        assert {row[11] for row in page} == {"0"}
        assert {row[6] - row[0] for row in page} == {59_999}
    _, headers, text = await twin.text("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit="1")
    assert headers["Content-Type"] == "application/json;charset=UTF-8"
    assert " " not in text


async def test_a_page_holds_the_tape_value_for_value(twin, generated):
    bars = generated.bars(Venue.BINANCE, BTC, Timeframe.parse("1m"), parse_time("2026-03-09")).head(
        1000
    )
    page = await twin.klines(startTime=to_millis(generated.span.start), limit=1000)
    for place, name in enumerate(FIELDS):
        if name == "open_time":
            expected = bars.get_column(name).dt.epoch("ms").to_list()
        elif name not in bars.columns:
            continue
        else:
            expected = bars.get_column(name).to_list()
        served = [row[place] for row in page]
        assert [type(value)(row) for value, row in zip(expected, served, strict=True)] == expected


OPEN = [f"2026-03-01T00:{minute:02}" for minute in range(60)]
PAGES = {
    "none is the latest": ({}, ("00:00", 500, "last")),
    "limit": ({"limit": 3}, ("", 3, "last")),
    "limit is clamped": ({"limit": 5000}, ("", 1000, "last")),
    "start is the oldest from it": ({"startTime": "T00:10", "limit": 2}, ("00:10", 2, "00:11")),
    "start is inclusive": ({"startTime": "T00:10", "endTime": "T00:10"}, ("00:10", 1, "00:10")),
    "start between bars": (
        {"startTime": "T00:10:00.001", "endTime": "T00:12:59.999"},
        ("00:11", 2, "00:12"),
    ),
    "end is the latest up to it": ({"endTime": "T00:20", "limit": 3}, ("00:18", 3, "00:20")),
    "end before the limit": ({"endTime": "T00:20"}, ("00:00", 21, "00:20")),
    "both never pass the end": (
        {"startTime": "T00:10", "endTime": "T00:14", "limit": 1000},
        ("00:10", 5, "00:14"),
    ),
    "both like start": (
        {"startTime": "T00:10", "endTime": "T00:14", "limit": 2},
        ("00:10", 2, "00:11"),
    ),
    "before the first bar": ({"startTime": "T-1", "limit": 1}, ("00:00", 1, "00:00")),
}


@pytest.mark.parametrize("case", PAGES)
async def test_paging(twin, case):
    query, (first, count, last) = PAGES[case]
    asked = {
        name: value if name == "limit" else 0 if value == "T-1" else ms(f"2026-03-01{value}")
        for name, value in query.items()
    }
    page = await twin.klines(**asked)
    assert len(page) == count
    if last == "last":
        assert page[-1][0] == ms("2026-03-02T23:59")
    else:
        assert page[0][0] == ms(f"2026-03-01T{first}")
        assert page[-1][0] == ms(f"2026-03-01T{last}")


@pytest.mark.parametrize(
    "query",
    [
        {"startTime": ms("2026-03-05")},
        {"endTime": ms("2026-02-28")},
        {"startTime": ms("2026-03-02"), "endTime": ms("2026-03-01")},
        {"interval": "4h"},
        {"interval": "1w"},
        {"startTime": ms("2026-03-01T14:00"), "endTime": ms("2026-03-01T15:59")},
    ],
    ids=["after", "before", "reversed", "tape lacks it", "never held", "outage"],
)
async def test_what_the_venue_does_not_have_is_an_empty_list(twin, generated, query):
    assert generated.defects.outage.start == parse_time("2026-03-01T14:00")
    assert await twin.klines(**query) == []


async def test_times_in_microseconds_are_understood(twin):
    span = {"startTime": ms("2026-03-01T00:10") * 1000, "endTime": ms("2026-03-01T00:12") * 1000}
    assert [row[0] for row in await twin.klines(**span)] == [
        ms(f"2026-03-01T00:{minute}") for minute in (10, 11, 12)
    ]


REFUSED = {
    "unknown symbol": ({"symbol": "NOPEUSDT"}, -1121, "Invalid symbol."),
    "canonical id": ({"symbol": "BTC/USDT"}, -1100, "'symbol'; legal range is '^[A-Z0-9-_.]{1,20}"),
    "no symbol": ({"symbol": None}, -1102, "Mandatory parameter 'symbol' was not sent"),
    "no interval": ({"interval": None}, -1102, "Mandatory parameter 'interval'"),
    "interval": ({"interval": "7m"}, -1120, "Invalid interval."),
    "start": ({"startTime": "now"}, -1100, "'startTime'; legal range is '^[0-9]{1,20}$'"),
    "negative end": ({"endTime": "-1"}, -1100, "'endTime'"),
    "empty start": ({"startTime": ""}, -1105, "'startTime' was empty"),
    "limit": ({"limit": "ten"}, -1100, "'limit'"),
    "no limit": ({"limit": "0"}, -1130, "'limit' is not valid"),
    "zone": ({"timeZone": "8"}, -1130, "timeZone"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_wrong_requests_are_refused_with_the_venues_codes(twin, case):
    changed, code, message = REFUSED[case]
    query = {"symbol": "BTCUSDT", "interval": "1m", **changed}
    query = {name: value for name, value in query.items() if value is not None}
    status, _, text = await twin.text("/api/v3/klines", **query)
    body = json.loads(text)
    assert (status, list(body), body["code"]) == (400, ["code", "msg"], code)
    assert message in body["msg"]


async def test_unknown_paths_and_hosts_are_not_found(twin):
    status, _, text = await twin.text("/api/v3/nothing")
    assert (status, text[:6]) == (404, "<html>")
    status, _, text = await twin.text("/api/v5/public/time", host="www.okx.com")
    assert status == 404
    assert "no twin of www.okx.com" in text
    assert (await twin.text("/api/v3/ping", host="data-api.binance.vision"))[0] == 200


async def test_exchange_info_has_the_keys_of_recorded_ones(twin):
    mine = await twin.json("/api/v3/exchangeInfo")
    assert [symbol["symbol"] for symbol in mine["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    by_kind = {each["filterType"]: each for each in mine["symbols"][0]["filters"]}
    assert by_kind["PRICE_FILTER"]["tickSize"] == "0.01000000"
    assert by_kind["LOT_SIZE"]["stepSize"] == "0.00001000"
    assert by_kind["NOTIONAL"]["minNotional"] == "5.00000000"
    if not FIXTURES.is_dir():
        pytest.skip("the recorded answers of ../shared/data are absent")
    documented = json.loads((FIXTURES / "binance/exchange_info_response.json").read_text())
    older = json.loads((FIXTURES / "binance_py/http_spot_market_exchange_info.json").read_text())
    assert list(mine["symbols"][0]) == list(documented["symbols"][0])
    assert set(older["symbols"][0]) <= set(mine["symbols"][0])
    for name, value in older["symbols"][0].items():
        assert type(mine["symbols"][0][name]) is type(value)
    assert list(older) == list(mine)
    assert shape(older["rateLimits"]) == shape(mine["rateLimits"])
    recorded_filters = {each["filterType"]: each for each in older["symbols"][0]["filters"]}
    for kind in recorded_filters.keys() & by_kind.keys():
        assert shape(by_kind[kind]) == shape(recorded_filters[kind])


@needs_recorded
async def test_exchange_info_listing_is_like_a_recorded_full_answer(twin):
    text = gzip.decompress((RECORDED / "ws/cryptofeed/BINANCE.0.gz").read_bytes()).decode()
    full, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    [mine] = (await twin.json("/api/v3/exchangeInfo", symbol="BTCUSDT"))["symbols"]
    [theirs] = [each for each in full["symbols"] if each["symbol"] == "BTCUSDT"]
    for name, value in theirs.items():
        if name not in ("filters", "permissions", "orderTypes"):
            assert mine[name] == value


async def test_exchange_info_takes_one_symbol_or_a_list(twin):
    one = await twin.json("/api/v3/exchangeInfo", symbol="ETHUSDT")
    assert [each["symbol"] for each in one["symbols"]] == ["ETHUSDT"]
    two = await twin.json("/api/v3/exchangeInfo", symbols='["ETHUSDT","BTCUSDT"]')
    assert [each["symbol"] for each in two["symbols"]] == ["ETHUSDT", "BTCUSDT"]
    for query, code in (
        ({"symbols": '["ETHUSDT","NOPE"]'}, -1121),
        ({"symbols": "ETHUSDT"}, -1100),
        ({"symbol": "ETHUSDT", "symbols": '["ETHUSDT"]'}, -1128),
    ):
        status, _, text = await twin.text("/api/v3/exchangeInfo", **query)
        assert (status, json.loads(text)["code"]) == (400, code)


@pytest.mark.parametrize("interval", ["1m", "5m", "1h"])
async def test_the_open_bar_is_unfinished_and_nothing_lies_after_it(twin, generated, interval):
    now = parse_time("2026-03-02T10:37:20")
    timeframe = Timeframe.parse(interval)
    opened = timeframe.floor(now)
    twin.exchange.clock.set(now)
    page = await twin.klines(interval=interval, limit=5)
    assert page[-1][0] == to_millis(opened)
    assert (await twin.klines(interval=interval, startTime=to_millis(now))) == []
    final = generated.bars(Venue.BINANCE, BTC, timeframe, now).filter(pl.col("open_time") == opened)
    unfinished = dict(zip(FIELDS, page[-1], strict=True))
    assert float(unfinished["open"]) == final.item(0, "open")
    assert 0 < float(unfinished["volume"]) < final.item(0, "volume")
    assert 0 < unfinished["trade_count"] < final.item(0, "trade_count")
    assert final.item(0, "low") <= float(unfinished["low"]) <= float(unfinished["high"])
    assert float(unfinished["high"]) <= final.item(0, "high")
    assert all(NUMBER.fullmatch(unfinished[name]) for name in ("open", "high", "volume"))
    if interval == "5m":
        parts = await twin.klines(startTime=to_millis(opened), endTime=to_millis(now))
        for name in ("volume", "quote_volume", "taker_buy_volume"):
            place = FIELDS.index(name)
            assert Decimal(unfinished[name]) == sum(Decimal(part[place]) for part in parts)
    twin.exchange.clock.set(opened + timeframe.duration)
    closed = await twin.klines(interval=interval, startTime=to_millis(opened), limit=1)
    assert float(closed[0][5]) == final.item(0, "volume")


async def test_a_bar_that_just_opened_shows_its_open(twin):
    twin.exchange.clock.set(parse_time("2026-03-02T10:37"))
    [_, row] = await twin.klines(limit=2)
    assert row[0] == ms("2026-03-02T10:37")
    assert len(set(row[1:5])) == 1
    assert (row[5], row[8]) == ("0.00000000", 0)


async def test_an_open_bar_over_a_gap_keeps_the_closed_minutes_whole(tmp_path):
    bars_frame("2026-03-01", 2).write_parquet(tmp_path / "1m.parquet")
    bars_frame("2026-03-01", 1).write_parquet(tmp_path / "5m.parquet")
    entries = (entry("1m.parquet"), entry("5m.parquet", timeframe="5m"))
    tape = Tape.load(write_tape(tmp_path, *entries))
    clock = ReplayClock(parse_time("2026-03-01T00:04:30"))
    async with ReplayExchange(tape, clock=clock) as exchange, aiohttp.ClientSession() as session:
        [row] = await Client(exchange.base_url, session).klines(interval="5m")
    assert row[1:6] == [
        "100.00000000", "103.50000000", "98.75000000", "102.00000000", "21.00000000",
    ]  # fmt: skip


async def test_a_revision_shows_when_the_clock_reaches_it(twin, generated):
    revision = generated.defects.revision
    query = {"startTime": to_millis(revision.open_time), "limit": 1}
    twin.exchange.clock.set(revision.at - MINUTE)
    [before] = await twin.klines(**query)
    twin.exchange.clock.set(revision.at)
    [after] = await twin.klines(**query)
    assert before != after
    assert Decimal(after[5]) - Decimal(before[5]) == Decimal("0.25")


async def test_a_tape_without_optional_columns_sends_null(tmp_path):
    bars_frame("2026-03-01", 10).write_parquet(tmp_path / "a.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("a.parquet")))
    async with ReplayExchange(tape) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange.base_url, session)
        assert exchange.clock.known() == parse_time("2026-03-01T00:11")
        [row] = await client.klines(limit=1)
        assert row[7:] == [None, None, None, None, "0"]
        [listing] = (await client.json("/api/v3/exchangeInfo"))["symbols"]
        filters = {each["filterType"]: each for each in listing["filters"]}
        assert filters["PRICE_FILTER"]["tickSize"] is None
        assert filters["LOT_SIZE"]["stepSize"] is None
        assert filters["NOTIONAL"]["minNotional"] is None
        exchange.clock.set(parse_time("2026-03-01T00:09:30"))
        [row] = await client.klines(limit=1)
        assert row[1:6] == [
            "109.00000000", "110.25000000", "108.38000000", "109.50000000", "9.50000000",
        ]  # fmt: skip
        assert row[7:] == [None, None, None, None, "0"]


async def test_numbers_are_never_rounded(tmp_path):
    odd = [1e-9, 0.1 + 0.2, 1e22, 60685.22, 1.2345678901234567]
    frame = bars_frame("2026-03-01", 5).with_columns(volume=pl.Series(odd))
    frame.write_parquet(tmp_path / "a.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("a.parquet")))
    async with ReplayExchange(tape) as exchange, aiohttp.ClientSession() as session:
        texts = [row[5] for row in await Client(exchange.base_url, session).klines()]
    assert texts == [
        "0.000000001",
        "0.30000000000000004",
        "10000000000000000000000.00000000",
        "60685.22000000",
        "1.2345678901234567",
    ]
    assert [float(text) for text in texts] == odd


def test_a_tape_without_bars_of_the_venue_is_refused(tmp_path):
    bars_frame("2026-03-01", 1).write_parquet(tmp_path / "a.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("a.parquet", venue="okx")))
    with pytest.raises(TapeError, match="no bars of binance spot"):
        ReplayExchange(tape)
    with pytest.raises(TapeError, match="no Binance spot bars"):
        ReplayExchange(tape, clock=ReplayClock(parse_time("2026-03-01")))


async def test_a_long_series_pages_across_chunks_without_loss(tmp_path):
    rows = 10_000
    bars_frame("2026-01-01", rows).write_parquet(tmp_path / "a.parquet")
    tape = Tape.load(write_tape(tmp_path, entry("a.parquet")))
    async with ReplayExchange(tape) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange.base_url, session)
        seen, start = [], 0
        while page := await client.klines(startTime=start, limit=999):
            seen += page
            start = page[-1][0] + 1
    assert len(seen) == rows
    assert {after[0] - before[0] for before, after in pairwise(seen)} == {60_000}
    assert [float(row[1]) for row in seen] == [100.0 + number for number in range(rows)]


@needs_recorded
@pytest.mark.recorded
async def test_the_recorded_hours_of_seven_years_are_served_value_for_value():
    tape = Tape.load(RECORDED)
    stored = pl.read_ipc(RECORDED / "bars/binance_spot_long/BTC_USDT-1h.feather")
    async with (
        ReplayExchange(tape, limits=False) as exchange,
        aiohttp.ClientSession() as session,
    ):
        assert exchange.clock.known() == parse_time("2026-04-24T13:16")
        client = Client(exchange.base_url, session)
        rows, start = [], 0
        query = {"interval": "1h", "limit": 1000, "endTime": ms("2024-12-31")}
        while page := await client.klines(startTime=start, **query):
            rows += page
            start = page[-1][0] + 1
    assert [row[0] for row in rows] == stored.get_column("date").dt.epoch("ms").to_list()
    for place, name in enumerate(("open", "high", "low", "close", "volume"), start=1):
        assert [float(row[place]) for row in rows] == stored.get_column(name).to_list()
    # The venue never sends more than eight decimals, so neither does an unrounded recording.
    assert all(NUMBER.fullmatch(text) for row in rows for text in row[1:6])


@needs_recorded
@pytest.mark.recorded
async def test_recorded_bars_with_all_fields_are_served_whole():
    tape = Tape.load(RECORDED)
    stored = pl.read_parquet(RECORDED / "bars/multivenue_1m_2023-03/binance_btceur.parquet")
    start = stored.item(0, "open_time")
    async with ReplayExchange(tape) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange.base_url, session)
        page = await client.klines(symbol="BTCEUR", startTime=start, limit=1000)
    names = ("open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    names += ("taker_buy_base", "taker_buy_quote")
    for place, name in enumerate(names, start=1):
        assert [float(row[place]) for row in page] == stored.get_column(name).to_list()[:1000]
