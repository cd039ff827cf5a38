"""The limiter against simulated venues, in virtual time: no refusals, hardly any waste."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter

import pytest

from contracts.errors import RateLimitedError
from flows.venues.limiter import Budget, WeightedLimiter


class VirtualTime:
    """A timer and a sleep that pass as fast as the coroutines allow."""

    def __init__(self):
        self.now = 1_000.0
        self._sleepers = []
        self._order = itertools.count()

    def timer(self):
        return self.now

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + max(seconds, 0), next(self._order), woken))
        await woken

    async def run(self, *coroutines, until=float("inf")):
        tasks = [asyncio.ensure_future(each) for each in coroutines]
        while not all(task.done() for task in tasks) and self.now < until:
            for _ in range(12):
                await asyncio.sleep(0)
            if self._sleepers:
                self.now, _, woken = heapq.heappop(self._sleepers)
                if not woken.done():
                    woken.set_result(None)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


class Venue:
    """Counts weight in fixed windows, or over a sliding one, and refuses what is too much."""

    def __init__(self, time, weight, window, *, sliding=False, phase=0.37, latency=(0.02, 0.3)):
        self.time, self.weight, self.window, self.sliding = time, weight, window, sliding
        self.phase, self.latency = phase, latency
        self.dice = random.Random(7)
        self.accepted = []
        self.refused = 0
        self.used_by_window = Counter()

    def used(self):
        if self.sliding:
            return sum(w for at, w in self.accepted if at > self.time.now - self.window)
        return self.used_by_window[self.window_number()]

    def window_number(self):
        return int((self.time.now + self.phase * self.window) // self.window)

    def count(self, weight, *, ours=True):
        if ours and self.used() + weight > self.weight:
            self.refused += 1
        self.accepted.append((self.time.now, weight))
        self.used_by_window[self.window_number()] += weight
        return self.used()

    async def ask(self, weight):
        await self.time.sleep(self.dice.uniform(*self.latency))
        used = self.count(weight)
        await self.time.sleep(self.dice.uniform(*self.latency))
        return used


async def worker(limiter, venue, weights):
    for weight in weights:
        async with limiter.request(weight) as ticket:
            ticket.used = await venue.ask(weight)


def limiter_of(time, weight, window, **options):
    return WeightedLimiter(
        "binance", Budget(weight, window), timer=time.timer, sleep=time.sleep, **options
    )


@pytest.mark.parametrize("phase", [0.0, 0.37, 0.99])
@pytest.mark.parametrize("latency", [(0.001, 0.01), (0.02, 0.3)])
async def test_uses_95_percent_and_is_never_refused(phase, latency):
    time = VirtualTime()
    venue = Venue(time, 600, 60, phase=phase, latency=latency)
    limiter = limiter_of(time, 600, 60)
    workers = [worker(limiter, venue, itertools.repeat(2)) for _ in range(8)]
    began = time.now
    await time.run(*workers, until=began + 600)
    assert venue.refused == 0
    spent = sum(weight for at, weight in venue.accepted if at < began + 600)
    assert spent >= 0.95 * 600 * 10


async def test_a_venue_that_counts_a_sliding_window_never_refuses_either():
    time = VirtualTime()
    venue = Venue(time, 600, 60, sliding=True)
    limiter = limiter_of(time, 600, 60)
    workers = [worker(limiter, venue, itertools.repeat(2)) for _ in range(8)]
    await time.run(*workers, until=time.now + 300)
    assert venue.refused == 0
    assert len(venue.accepted) > 600


async def test_whole_fixed_windows_are_filled_to_95_percent():
    time = VirtualTime()
    venue = Venue(time, 600, 60, phase=0.5)
    limiter = limiter_of(time, 600, 60)
    await time.run(
        *(worker(limiter, venue, itertools.repeat(2)) for _ in range(8)), until=time.now + 600
    )
    inner = sorted(venue.used_by_window)[1:-1]
    assert venue.refused == 0
    assert min(venue.used_by_window[number] for number in inner) >= 570


async def test_calls_of_different_weight_share_the_budget():
    time = VirtualTime()
    venue = Venue(time, 200, 10)
    limiter = limiter_of(time, 200, 10)
    workers = [worker(limiter, venue, itertools.cycle([2, 2, 20, 1])) for _ in range(6)]
    await time.run(*workers, until=time.now + 100)
    assert venue.refused == 0
    assert sum(weight for _, weight in venue.accepted) >= 0.85 * 200 * 10


async def test_another_process_that_used_the_minute_before_us_is_seen():
    time = VirtualTime()
    venue = Venue(time, 600, 60, phase=0.5)
    venue.count(560)
    limiter = limiter_of(time, 600, 60)
    await time.run(
        *(worker(limiter, venue, itertools.repeat(2)) for _ in range(8)), until=time.now + 300
    )
    assert venue.refused == 0


async def test_another_process_beside_us_is_made_room_for():
    time = VirtualTime()
    venue = Venue(time, 6000, 60)
    limiter = limiter_of(time, 6000, 60)

    async def neighbour():
        while True:
            venue.count(20, ours=False)
            await time.sleep(0.5)

    await time.run(
        neighbour(),
        *(worker(limiter, venue, itertools.repeat(20)) for _ in range(20)),
        until=time.now + 300,
    )
    assert venue.refused == 0
    assert sum(weight for _, weight in venue.accepted) >= 0.9 * 6000 * 5


async def test_without_the_count_of_the_venue_the_neighbour_would_cost_refusals():
    time = VirtualTime()
    venue = Venue(time, 600, 60, phase=0.5)
    venue.count(560)
    limiter = limiter_of(time, 600, 60)

    async def blind(limiter, venue):
        while True:
            async with limiter.request(2):
                await venue.ask(2)

    await time.run(*(blind(limiter, venue) for _ in range(8)), until=time.now + 30)
    assert venue.refused > 0


async def test_a_pause_stops_every_worker_and_is_told():
    time = VirtualTime()
    limiter = limiter_of(time, 600, 60)
    told, left = [], []

    async def one():
        async with limiter.request(1, lambda reason, seconds: told.append((reason, seconds))):
            left.append(time.now)

    began = time.now
    limiter.pause(30, "binance: banned")
    limiter.pause(5, "shorter")
    await time.run(*(one() for _ in range(5)))
    assert left == [began + 30] * 5
    assert told == [("binance: banned", 30)]


async def test_a_pause_that_is_set_while_waiting_is_kept():
    time = VirtualTime()
    limiter = limiter_of(time, 600, 60)
    left = []

    async def one():
        async with limiter.request(1):
            left.append(time.now)

    async def extend():
        await time.sleep(5)
        limiter.pause(100, "longer")

    began = time.now
    limiter.pause(10, "first")
    await time.run(one(), extend())
    assert left == [began + 105]


async def test_a_pause_too_long_to_wait_is_raised():
    time = VirtualTime()
    limiter = limiter_of(time, 600, 60, longest_wait_seconds=60)
    limiter.pause(3600, "binance: this address is banned")
    with pytest.raises(RateLimitedError, match="banned; it asks us to wait 3600 s") as caught:
        await time.run(worker(limiter, Venue(time, 1, 1), [1]))
    assert caught.value.retry_after_seconds == 3600
    assert "run again in 3600 s" in caught.value.remedy


async def test_a_budget_wait_is_told_with_reason_and_length():
    time = VirtualTime()
    limiter = limiter_of(time, 100, 60)
    told = []
    venue = Venue(time, 100, 60)

    async def spend():
        for _ in range(60):
            async with limiter.request(2, lambda *what: told.append(what)) as ticket:
                ticket.used = await venue.ask(2)

    await time.run(spend())
    assert told
    reason, seconds = told[0]
    assert "binance" in reason
    assert "weight" in reason
    assert 0 < seconds <= 60


async def test_a_call_heavier_than_the_budget_goes_alone():
    time = VirtualTime()
    limiter = limiter_of(time, 10, 60)
    venue = Venue(time, 10, 60)
    await time.run(worker(limiter, venue, [20, 20]))
    assert len(venue.accepted) == 2
    assert venue.accepted[1][0] - venue.accepted[0][0] >= 60


async def test_a_charge_is_given_back_when_the_request_fails():
    time = VirtualTime()
    limiter = limiter_of(time, 10, 60)
    with pytest.raises(ValueError, match="broken"):
        async with limiter.request(4):
            raise ValueError("broken")
    assert limiter._in_flight == 0
    assert limiter._settled_weight == 4


async def test_no_budget_means_no_waiting_but_pauses_are_kept():
    time = VirtualTime()
    limiter = WeightedLimiter("binance", None, timer=time.timer, sleep=time.sleep)
    venue = Venue(time, 10**9, 60, latency=(0, 0))
    began = time.now
    await time.run(*(worker(limiter, venue, [20] * 50) for _ in range(8)))
    assert time.now == began
    limiter.pause(7, "stop")
    await time.run(worker(limiter, venue, [1]))
    assert time.now == began + 7


def test_one_limiter_serves_several_event_loops():
    limiter = WeightedLimiter("binance", Budget(100, 60))

    async def some():
        async def one():
            async with limiter.request(2):
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(10)))

    asyncio.run(some())
    asyncio.run(some())
    assert limiter._settled_weight == 40


@pytest.mark.parametrize("sliding", [False, True])
async def test_slow_roads_cost_no_refusal_even_when_the_venue_states_no_count(sliding):
    time = VirtualTime()
    venue = Venue(time, 60, 60, sliding=sliding, latency=(0.02, 8))
    limiter = WeightedLimiter(
        "binance", Budget(60, 60, headroom=0), timer=time.timer, sleep=time.sleep
    )

    async def blind():
        while True:
            async with limiter.request(2):
                await venue.ask(2)

    await time.run(*(blind() for _ in range(8)), until=time.now + 900)
    assert venue.refused == 0
    assert len(venue.accepted) > 300


async def test_an_answer_of_the_last_window_that_comes_late_blocks_nobody():
    time = VirtualTime()
    limiter = limiter_of(time, 100, 60)

    async def answered(used, *, after, weight=2):
        async with limiter.request(weight) as ticket:
            await time.sleep(after)
            ticket.used = used

    async def story():
        await answered(90, after=0.1)
        late = asyncio.ensure_future(answered(92, after=30))
        await time.sleep(20)
        await answered(2, after=0.1)
        await late
        began = time.now
        await answered(6, after=0, weight=20)
        assert time.now == began

    await time.run(story())
    assert limiter._straddling == 0


async def test_an_answer_that_straddles_a_turn_is_charged_to_the_new_window():
    time = VirtualTime()
    limiter = limiter_of(time, 100, 60)

    async def answered(used, *, after):
        async with limiter.request(2) as ticket:
            await time.sleep(after)
            ticket.used = used

    async def story():
        await answered(90, after=0.1)
        late = asyncio.ensure_future(answered(92, after=30))
        await time.sleep(20)
        await answered(2, after=0.1)
        await late
        assert (limiter._count, limiter._straddling) == (2, 2)

    await time.run(story())
