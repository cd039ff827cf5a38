"""Pages of Binance klines: exact values, and a named error for every surprise."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PayloadError
from contracts.names import Timeframe, Venue
from contracts.response import Response
from contracts.tables import BARS
from contracts.time import to_micros
from flows.venues.binance import BAR_SCHEMA, parse_bars, parse_bars_many, parse_server_time
from flows.venues.binance_pages import parse_plain_pages

NOW = datetime(2026, 4, 1, tzinfo=UTC)
MINUTE = 60_000
OPEN = 1_774_310_400_000


def response_of(body, *, interval="1m"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    params = {"symbol": "BTCUSDT", "interval": interval}
    return Response(Venue.BINANCE, "GET /api/v3/klines", params, NOW, NOW, 200, None, raw)


def row_of(at=0, *, opened=None, **changes):
    opened = OPEN + at * MINUTE if opened is None else opened
    row = {
        "open_time": opened,
        "open": "100.10000000",
        "high": "101.00000000",
        "low": "99.50000000",
        "close": "100.70000000",
        "volume": "12.34500000",
        "close_time": opened + MINUTE - 1,
        "quote_volume": "1240.00000000",
        "trade_count": 42,
        "taker_buy_volume": "6.00000000",
        "taker_buy_quote_volume": "600.00000000",
        "ignored": "0",
    }
    return list((row | changes).values())


def test_a_row_becomes_a_bar_of_the_contract():
    frame = parse_bars(response_of([row_of()]))
    assert dict(frame.schema) == BAR_SCHEMA
    assert all(BARS.schema[name] == dtype for name, dtype in frame.schema.items())
    assert frame.rows() == [
        (
            datetime(2026, 3, 24, tzinfo=UTC),
            100.1,
            101.0,
            99.5,
            100.7,
            12.345,
            1240.0,
            42,
            6.0,
            600.0,
        )
    ]


def test_microseconds_are_told_by_their_magnitude():
    opened = OPEN * 1000
    row = row_of(opened=opened, close_time=opened + MINUTE * 1000 - 1)
    assert parse_bars(response_of([row]))["open_time"][0] == datetime(2026, 3, 24, tzinfo=UTC)


def test_order_doubles_and_gaps_stay_as_given():
    page = [row_of(5), row_of(1), row_of(1)]
    minutes = parse_bars(response_of(page))["open_time"].dt.minute().to_list()
    assert minutes == [5, 1, 1]


def test_nulls_of_the_last_volume_fields_are_kept():
    fields = ("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
    frame = parse_bars(response_of([row_of(), row_of(1, **dict.fromkeys(fields))]))
    assert frame.select(fields).row(1) == (None,) * 4
    assert frame.select(fields).row(0) == (1240.0, 42, 6.0, 600.0)
    everywhere = parse_bars(response_of([row_of(**dict.fromkeys(fields))]))
    assert dict(everywhere.schema) == BAR_SCHEMA


@pytest.mark.parametrize("body", [b"[]", b" [ ]\n"])
def test_an_empty_list_is_an_empty_frame(body):
    frame = parse_bars(response_of(body))
    assert frame.height == 0
    assert dict(frame.schema) == BAR_SCHEMA


def test_the_page_of_each_bar_is_told():
    pages = [response_of([row_of(), row_of(1)]), response_of([]), response_of([row_of(7)])]
    frame = parse_bars_many(pages)
    assert frame["page"].to_list() == [0, 0, 2]
    assert frame.columns == ["page", *BAR_SCHEMA]
    assert frame.filter(page=0).drop("page").equals(parse_bars(pages[0]))
    assert dict(parse_bars_many([]).schema) == {"page": pl.UInt32, **BAR_SCHEMA}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "an empty body"),
        (b"  \n", "an empty body"),
        (b"<html><body>502</body></html>", "HTML instead of JSON"),
        (json.dumps([row_of()]).encode()[:-9], "the body ends there: it was cut short"),
        (b"[[1,2}", "no JSON at character 5 of 6"),
        (b"\xff\xfe[]\x80", "bytes that are no text"),
        (b"[" * 100_000, "JSON that cannot be read"),
        ({"code": 0, "msg": "fine"}, "a JSON object where a list of rows belongs"),
        (None, "a JSON null where a list of rows belongs"),
        ([row_of(), {}], "row 1 is a JSON object, not a list"),
        ([row_of(), row_of(1)[:-1]], "row 1 has 11 elements, not 12"),
        ([row_of(), [*row_of(1), "0"]], "row 1 has 13 elements, not 12"),
        ([[]], "row 0 has 0 elements, not 12"),
        ([row_of(open_time="1")], "row 0, open_time: '1' is a JSON string"),
        ([row_of(open_time=True)], "row 0, open_time: True is a JSON boolean"),
        ([row_of(open_time=float(OPEN))], "is a JSON number"),
        ([row_of(), row_of(1, high=101.0)], "row 1, high: 101.0 is a JSON number"),
        ([row_of(low=None)], "row 0, low: None is a JSON null"),
        ([row_of(volume=None)], "row 0, volume: None is a JSON null"),
        ([row_of(close=["1"])], "row 0, close: ['1'] is a JSON list"),
        ([row_of(ignored={})], "row 0, ignored: {} is a JSON object"),
        ([row_of(), row_of(1, open="abc")], "row 1, open: 'abc' is no finite number"),
        ([row_of(open="")], "row 0, open: '' is no finite number"),
        ([row_of(open=" 1")], "row 0, open: ' 1' is no finite number"),
        ([row_of(open="NaN")], "row 0, open: 'NaN' is no finite number"),
        ([row_of(open="inf")], "row 0, open: 'inf' is no finite number"),
        ([row_of(open="1e400")], "row 0, open: '1e400' is no finite number"),
        (
            [row_of(taker_buy_volume=None), row_of(1, taker_buy_volume="x")],
            "row 1, taker_buy_volume: 'x' is no finite number",
        ),
        ([row_of(trade_count="42")], "row 0, trade_count: '42' is a JSON string"),
        ([row_of(trade_count=2**70)], "too large for a 64-bit number"),
        ([row_of(close_time=OPEN + MINUTE)], f"row 0, close_time: {OPEN + MINUTE} is not"),
        ([row_of(), row_of(opened=(OPEN + MINUTE) * 1000)], "mixed in one page"),
        ([row_of(opened=OPEN // 1000)], f"the time {OPEN // 1000}, neither"),
        ([row_of(opened=0)], "the time 0, neither"),
        ([row_of(opened=-OPEN)], f"the time {-OPEN}, neither"),
        ([row_of(opened=OPEN * 10**6)], f"the time {OPEN * 10**6}, neither"),
        ([row_of(opened=10**40)], "neither milliseconds nor microseconds"),
    ],
)
def test_any_other_shape_is_told_with_its_place(body, what):
    with pytest.raises(PayloadError) as caught:
        parse_bars(response_of(body if body is not None else b"null"))
    assert what in str(caught.value)
    assert caught.value.symbol == "BTCUSDT"
    assert (
        caught.value.response_id == response_of(body if body is not None else b"null").response_id
    )


def test_a_halt_may_cut_a_bar_short():
    whole, cut = row_of(), row_of(opened=OPEN + MINUTE, close_time=OPEN + MINUTE + 20_000)
    assert parse_bars(response_of([whole, cut])).height == 2
    assert parse_bars(response_of([cut])).height == 1
    with pytest.raises(PayloadError, match="close_time"):
        parse_bars(response_of([row_of(close_time=OPEN + MINUTE + 1)]))


def test_bars_of_another_timeframe_than_asked_are_refused():
    with pytest.raises(PayloadError, match="open_time \\+ 1h - 1"):
        parse_bars(response_of([row_of()], interval="1h"))


@pytest.mark.parametrize(
    ("body", "what"),
    [({"serverTime": "1"}, "no serverTime"), ([], "no serverTime"), ({"serverTime": 5}, "neither")],
)
def test_a_server_time_of_another_shape_is_refused(body, what):
    with pytest.raises(PayloadError, match=what):
        parse_server_time(response_of(body))


def test_recorded_documentation_page(recorded):
    raw = (recorded / "fixtures/nautilus/binance_py/http_spot_market_klines.json").read_bytes()
    frame = parse_bars(response_of(raw))
    assert frame.height == 10
    assert frame["open"][0] == 60685.22
    assert frame["trade_count"][0] == 617


AMOUNTS = st.one_of(
    st.decimals(min_value=0, max_value=10**9, places=8).map(lambda value: f"{value:.8f}"),
    st.floats(min_value=1e-12, max_value=1e12).map(repr),
)
ROWS = st.tuples(
    st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS),
    st.none() | AMOUNTS,
    st.none() | st.integers(0, 10**9),
    st.none() | AMOUNTS,
    st.none() | AMOUNTS,
)


@given(
    rows=st.lists(ROWS, max_size=20),
    timeframe=st.sampled_from(Timeframe.all()),
    start=st.datetimes(datetime(2017, 7, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - made aware
    in_micros=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_what_is_rendered_is_what_is_parsed(rows, timeframe, start, in_micros, indent):
    first = timeframe.floor(start.replace(tzinfo=UTC))
    page, expected = [], []
    for at, (prices, quote, trades, taker, taker_quote) in enumerate(rows):
        opened = first + at * timeframe.duration
        unit = 1 if in_micros else 1000
        close = to_micros(opened + timeframe.duration) // unit - 1
        times = to_micros(opened) // unit
        page.append([times, *prices, close, quote, trades, taker, taker_quote, "0"])
        numbers = [None if text is None else float(text) for text in (quote, taker, taker_quote)]
        expected.append((opened, *map(float, prices), numbers[0], trades, *numbers[1:]))
    raw = json.dumps(page, indent=indent).encode()
    assert parse_bars(response_of(raw, interval=timeframe.code)).rows() == expected


@given(cut=st.integers(1, 400))
def test_a_page_cut_anywhere_is_never_taken_for_whole(cut):
    whole = json.dumps([row_of(at) for at in range(4)]).encode()
    with pytest.raises(PayloadError):
        parse_bars(response_of(whole[:-cut] if cut < len(whole) else b""))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=20))
def test_no_json_makes_anything_but_bars_or_a_payload_error(body):
    try:
        frame = parse_bars(response_of(body))
    except PayloadError:
        return
    assert body == []
    assert frame.height == 0


amounts = st.floats(0, 1e12, allow_nan=False).map(lambda value: repr(float(value)))


@given(st.lists(st.tuples(amounts, amounts, st.integers(0, 2**40)), min_size=1, max_size=20))
def test_many_plain_pages_equal_each_page_read_with_care(cells):
    rows = [
        row_of(at, open=one, quote_volume=two, trade_count=count)
        for at, (one, two, count) in enumerate(cells)
    ]
    pages = [response_of(rows), response_of([]), response_of(rows[:1])]
    compact = [replace(page, body=page.body.replace(b" ", b"")) for page in pages]
    plain = parse_plain_pages(compact)
    careful = pl.concat([parse_bars(page) for page in pages])
    assert plain is None or plain.drop("page").equals(careful)
    assert plain is not None or any("e" in cell for row in cells for cell in row[:2])


@pytest.mark.parametrize(
    "row",
    [
        row_of(quote_volume=None),
        row_of(close_time=OPEN + 20_000),
        row_of(open_time="1"),
        row_of(open=100.5),
        row_of(ignored=["0"]),
        row_of()[:11],
        [*row_of(), "0"],
    ],
)
def test_a_page_out_of_the_common_form_is_read_with_care(row):
    page = response_of([row_of(), row])
    compact = replace(page, body=page.body.replace(b" ", b""))
    assert parse_plain_pages([compact]) is None
