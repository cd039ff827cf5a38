"""bronze.responses keeps what was answered, byte for byte, once."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from kernel_support import KNOWN, MINUTE, Kernel, response_of

from contracts.tables import RESPONSES
from lake.landing import LOOK_BACK, landed

BODIES = {
    "json": b'[[1499040000000,"0.01634790"]]',
    "umlauts": "Störung „heute“".encode(),
    "not utf-8": b"\xff\xfe\x00\x80",
    "latin-1": "Störung".encode("latin-1"),
    "empty": b"",
    "nul": b"a\x00b",
    "bom and crlf": b"\xef\xbb\xbfa\r\nb\r",
    "zip": bytes(range(256)) * 40,
    "looks like base64": b"AAAA",
}


@pytest.fixture
def kernel(lake_root):
    return Kernel(lake_root)


def back(kernel):
    view = kernel.tables[RESPONSES.name].head()
    return landed(kernel.store, view, venue="binance", endpoint="GET /api/v3/klines")


def test_every_body_comes_back_as_it_came(kernel):
    told = [
        response_of(body, at=KNOWN + number * MINUTE) for number, body in enumerate(BODIES.values())
    ]
    assert kernel.land(*told).rows == len(told)
    assert back(kernel) == told
    assert [each.response_id for each in back(kernel)] == [each.response_id for each in told]


def test_a_second_landing_makes_no_commit(kernel):
    told = [response_of(body) for body in BODIES.values()]
    version = kernel.land(*told).version
    again = kernel.land(*told, run_id="another run")
    assert (again.rows, again.version, again.changed) == (0, version, False)
    assert kernel.land().changed is False


def test_an_equal_body_is_kept_once(kernel):
    first, second = response_of(b"[1]"), response_of(b"[1]", at=KNOWN + MINUTE)
    kernel.land(first, second)
    third = response_of(b"[1]", at=KNOWN + timedelta(days=3))
    kernel.land(third)
    payloads = kernel.rows(RESPONSES).sort("received_at")["payload"].to_list()
    assert payloads == ["[1]", None, None]
    assert back(kernel) == [first, second, third]


def test_a_body_older_than_the_look_back_is_kept_again(kernel):
    later = KNOWN + LOOK_BACK + timedelta(days=2)
    kernel.land(response_of(b"[1]"))
    kernel.land(response_of(b"[1]", at=later))
    assert kernel.rows(RESPONSES)["payload"].null_count() == 0
    assert [each.body for each in back(kernel)] == [b"[1]", b"[1]"]


def test_another_endpoint_keeps_its_own_body(kernel):
    one, other = response_of(b"[]"), response_of(b"[]", at=KNOWN + MINUTE)
    object.__setattr__(other, "endpoint", "GET /api/v3/time")
    kernel.land(one)
    kernel.land(other)
    assert kernel.rows(RESPONSES)["payload"].null_count() == 0
    assert back(kernel) == [one]


def test_pages_of_one_batch_are_one_commit_in_order(kernel):
    told = [response_of(b"[%d]" % number, at=KNOWN + number * MINUTE) for number in range(20)]
    assert kernel.land(*reversed(told)).version == 1
    assert back(kernel) == told
    overlap = kernel.land(*told[10:], response_of(b"[99]", at=KNOWN + timedelta(days=1)))
    assert overlap.rows == 1
    dates = kernel.rows(RESPONSES).group_by("date").agg(pl.len()).sort("date")
    assert dates.rows() == [("2026-04-01", 20), ("2026-04-02", 1)]
