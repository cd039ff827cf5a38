"""One test per row of the error table, over real HTTP: class, what we do, what the user reads."""

from __future__ import annotations

import pickle
import socket

import pytest
from venue_support import HOUR, MINUTE, adapter_at, body, cut, error, hang, reset, serving

from contracts.errors import (
    PayloadError,
    RateLimitedError,
    TidemarkError,
    UnknownSymbolError,
    UnsupportedByVenueError,
    VenueRejectedError,
    VenueUnavailableError,
)
from contracts.names import Venue
from flows.venues.errors import ROWS, Action, Failure, NetworkFailure, row_for
from flows.venues.limiter import WeightedLimiter

HTML = "<html><body>blocked</body></html>"


async def failing(handler, *, max_attempts=4, longest_wait_seconds=0.5, timeout_seconds=5.0):
    """Ask a server that always fails so; return the error, the attempts and what was kept."""
    kept = []
    limiter = WeightedLimiter("binance", None, longest_wait_seconds=longest_wait_seconds)
    async with (
        serving(always=handler) as server,
        adapter_at(
            server.url,
            limiter=limiter,
            max_attempts=max_attempts,
            on_failed_response=kept.append,
            timeout_seconds=timeout_seconds,
        ) as venue,
    ):
        with pytest.raises(TidemarkError) as caught:
            await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
    return caught.value, len(server.seen), kept


RETRIED = [
    (error(500, -1000, "An unknown error occurred"), "it failed inside", "-1000"),
    (error(503, -1001, "Disconnected"), "it was cut off from its backend", "-1001"),
    (error(503, -1007, "Timeout waiting"), "its backend did not answer in time", "-1007"),
    (error(503, -1008, "Server is overloaded"), "it is overloaded", "-1008"),
    (error(503, -1016, "No longer available"), "it is shut for maintenance", "-1016"),
    (error(502, message=HTML), "it is failing", "HTTP 502"),
    (error(503, message=""), "it is failing", "HTTP 503"),
    (error(408, message=""), "the request timed out there", "HTTP 408"),
]


@pytest.mark.parametrize(("handler", "what", "told"), RETRIED)
async def test_trouble_of_the_venue_is_retried_then_unavailable(handler, what, told):
    error, attempts, kept = await failing(handler)
    assert type(error) is VenueUnavailableError
    assert (attempts, len(kept), error.attempts) == (4, 4, 4)
    assert what in error.message
    assert told in error.message
    assert "GET /api/v3/klines for BTCUSDT" in error.message
    assert "Run the same command again later" in error.remedy
    assert (error.venue, error.endpoint, error.symbol) == (
        "binance",
        "GET /api/v3/klines",
        "BTCUSDT",
    )
    assert error.response_id == kept[-1].response_id


FATAL = [
    (
        error(400, -1121, "Invalid symbol."),
        UnknownSymbolError,
        "no such symbol",
        "lake instruments",
    ),
    (
        error(400, -1120, "Invalid interval."),
        UnsupportedByVenueError,
        "timeframe",
        "Choose a timefr",
    ),
    (
        error(400, -1100, "Illegal"),
        VenueRejectedError,
        "illegal characters",
        "binance writes BTCUSDT",
    ),
    (error(400, -1102, "Mandatory"), VenueRejectedError, "missing or empty", "Report it"),
    (error(400, -1127, "Too long"), VenueRejectedError, "too long", "a shorter span"),
    (error(400, -1130, "Invalid data"), VenueRejectedError, "is invalid", "Report it"),
    (error(400, -9999, "New"), VenueRejectedError, "it refused the request", "says why"),
    (error(404, message=HTML), VenueRejectedError, "it refused the request", "says why"),
    (
        error(451, 0, "Service unavailable from a restricted location"),
        VenueRejectedError,
        "does not serve the country",
        "https://data-api.binance.vision",
    ),
]


@pytest.mark.parametrize(("handler", "kind", "what", "remedy"), FATAL)
async def test_what_cannot_be_helped_leaves_at_once(handler, kind, what, remedy):
    error, attempts, kept = await failing(handler)
    assert type(error) is kind
    assert (attempts, len(kept)) == (1, 1)
    assert what in error.message
    assert remedy in error.remedy
    assert error.symbol == "BTCUSDT"
    assert error.retryable is False


PAYLOADS = [
    (body(HTML.encode(), kind="text/html"), "HTML came where data belongs"),
    (body(b""), "an empty body came"),
    (body(b'[[1774310400000,"1.0'), "cut short"),
    (body(b'{"code":-1003,"msg":"odd"}'), "a JSON object where a list of rows belongs"),
    (body(b"[[null,null,null,null,null,null]]"), "row 0 has 6 elements, not 12"),
    (body(b"", status=302, headers={"Location": "http://127.0.0.1:9/"}), "a redirect"),
]


@pytest.mark.parametrize(("handler", "what"), PAYLOADS)
async def test_a_body_that_is_no_data_is_kept_and_asked_again_three_times(handler, what):
    error, attempts, kept = await failing(handler)
    assert type(error) is PayloadError
    assert (attempts, len(kept)) == (3, 3)
    assert what in error.message
    assert error.response_id == kept[-1].response_id
    assert error.remedy


BANS = [
    (
        error(418, -1003, "banned until 1774396800000", headers={"Retry-After": "180"}),
        "banned",
        180,
    ),
    (error(418, -1003, "Way too much request weight used; IP banned"), "banned", 120),
    (
        error(
            418,
            -1003,
            "IP banned until 1774310700000. Please",
            headers={"Date": "Tue, 24 Mar 2026 00:00:00 GMT"},
        ),
        "banned",
        300,
    ),
    (error(403, message=HTML), "web firewall", 300),
    (error(429, -1003, "Too much", headers={"Retry-After": "7"}), "used up", 7),
    (error(429, message=HTML), "used up", 60),
    (error(400, -1003, "Too many requests"), "too many requests", 60),
    (
        error(
            429,
            -1003,
            headers={
                "Date": "Tue, 24 Mar 2026 00:00:00 GMT",
                "Retry-After": "Tue, 24 Mar 2026 00:00:09 GMT",
            },
        ),
        "used up",
        9,
    ),
]


@pytest.mark.parametrize(("handler", "what", "seconds"), BANS)
async def test_a_wait_too_long_for_us_is_raised_with_its_length(handler, what, seconds):
    error, attempts, kept = await failing(handler)
    assert type(error) is RateLimitedError
    assert (attempts, len(kept)) == (1, 1)
    assert what in error.message
    assert error.retry_after_seconds == pytest.approx(seconds, abs=1)
    assert "Stop every other program" in error.remedy
    assert (error.venue, error.endpoint, error.symbol) == (
        "binance",
        "GET /api/v3/klines",
        "BTCUSDT",
    )


async def test_short_waits_are_kept_until_the_attempts_are_used_up():
    handler = error(429, -1003, headers={"Retry-After": "0"})
    failed, attempts, kept = await failing(handler)
    assert type(failed) is RateLimitedError
    assert (attempts, len(kept), failed.attempts) == (4, 4, 4)
    assert "lower the concurrency" in failed.remedy


NETWORK = [
    (reset, "the connection was lost", 5.0),
    (hang, "no answer came in time", 0.05),
]


@pytest.mark.parametrize(("handler", "what", "timeout_seconds"), NETWORK)
async def test_network_failures_are_retried_then_unavailable(handler, what, timeout_seconds):
    failed, attempts, kept = await failing(handler, max_attempts=2, timeout_seconds=timeout_seconds)
    assert type(failed) is VenueUnavailableError
    assert attempts >= 2
    assert kept == []
    assert what in failed.message
    assert "Check that this machine reaches the venue" in failed.remedy


async def test_a_body_cut_on_the_wire_is_kept_as_far_as_it_came():
    failed, attempts, kept = await failing(cut, max_attempts=2)
    assert type(failed) is VenueUnavailableError
    assert "the answer was cut short" in failed.message
    assert "the body ended after 16 bytes" in failed.message
    assert [response.body for response in kept] == [b"[[1774310400000,"] * 2
    assert attempts == 2


async def test_a_closed_port_says_that_nobody_listens():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with adapter_at(url, max_attempts=2) as venue:
            with pytest.raises(VenueUnavailableError, match="nobody accepts connections") as caught:
                await venue.fetch_instruments()
    assert "replay exchange" in caught.value.remedy
    assert caught.value.symbol is None


async def test_a_host_that_does_not_exist_says_so():
    async with adapter_at("http://venue.invalid", max_attempts=1) as venue:
        with pytest.raises(VenueUnavailableError, match="host name was not found"):
            await venue.server_time()


async def test_after_trouble_the_answer_is_returned():
    kept = []
    script = [error(502, message=HTML), body(b"<html>"), error(500, -1000), reset]
    async with (
        serving(*script) as server,
        adapter_at(server.url, on_failed_response=kept.append) as venue,
    ):
        response = await venue.fetch_bars("BTCUSDT", MINUTE, HOUR)
    assert venue.parse_bars(response).height == 60
    assert [(each.status, each.body[:6]) for each in kept] == [
        (502, b"<html>"),
        (200, b"<html>"),
        (500, b'{"code'),
    ]


async def test_trouble_with_the_clock_of_the_venue_is_no_data():
    kept = []
    async with (
        serving(error(500, -1000)) as server,
        adapter_at(server.url, on_failed_response=kept.append) as venue,
    ):
        await venue.server_time()
    assert kept == []


async def test_every_error_survives_pickling():
    failed, _, _ = await failing(error(400, -1121, "Invalid symbol."))
    copy = pickle.loads(pickle.dumps(failed))
    assert (str(copy), copy.context) == (str(failed), failed.context)


def test_every_failure_has_a_row():
    for status in (200, *range(300, 600)):
        assert row_for(Failure(Venue.BINANCE, status, text="anything"))
        assert row_for(Failure(Venue.OKX, status, text="anything"))
    for kind in NetworkFailure:
        assert row_for(Failure(Venue.BINANCE, network=kind)).error is VenueUnavailableError


def test_every_row_tells_what_happened_and_what_to_do():
    for row in ROWS:
        assert row.what
        assert row.advice
        assert not row.advice.endswith(".")
        assert row.wait_seconds > 0 or row.action not in (Action.WAIT, Action.STOP)
        assert row.error.retryable == (row.action is not Action.FATAL) or row.network
