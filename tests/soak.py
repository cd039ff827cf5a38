"""A lake that is revised, maintained, killed and restarted for as long as one lets it.

``python tests/soak.py --seed 7 --steps 1000 --kills 20 --gateway-kills 20`` makes a lake of all
Binance bars of the recorded tape (or of the generated one where there is none) on a real S3
server, pins it, and then does one random thing after the other: revisions, appends, repeats,
snapshots, unpins, compactions, checkpoints, vacuums without grace. Some are done by a process
that is killed on the way, during others the gateway is killed; both are done again. All the
while the pin must read equal. At the end exactly the files that nothing reaches are gone, the
heads hold what a model says, and a byte that is flipped in any file is found and named.

Everything is drawn from the seed; ``--folder DIR`` soaks a folder instead of a bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import polars as pl  # noqa: E402
from kernel_support import Row, bars_of  # noqa: E402
from machine_support import (  # noqa: E402
    compact_all,
    data_files,
    reachable,
    standing,
    unpin,
    vacuum_all,
)
from replay_support import RECORDED  # noqa: E402

import lake  # noqa: E402
from contracts.errors import StorageError  # noqa: E402
from contracts.names import MarketType, Venue  # noqa: E402
from contracts.tables import BAR_REVISIONS, BARS  # noqa: E402
from contracts.time import Span, SteppedClock  # noqa: E402
from flows.backfill import Access, BackfillRequest, backfill  # noqa: E402
from flows.replay.generated import GeneratedTape  # noqa: E402
from flows.replay.server import ReplayExchange  # noqa: E402
from flows.replay.tape import Tape  # noqa: E402
from flows.work import open_work  # noqa: E402
from lake.manifest import load_manifest  # noqa: E402
from lake.pins import pinned_ids  # noqa: E402
from lake.rowhash import frame_hash  # noqa: E402
from lake.settings import Settings  # noqa: E402
from lake.snapshots import create_snapshot  # noqa: E402
from lake.sources import Tables  # noqa: E402
from lake.store import Store  # noqa: E402
from lake.verify import verify  # noqa: E402
from lake.versioned import publish_bars  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from s3_support import Ceph

    from lake.versioned import Published

ORIGIN_LABEL = "soak-first"
APPENDED = "SOAK-USDT-SPOT.BINANCE"
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
WEIGHTS = {
    "revise": 6,
    "append": 4,
    "again": 2,
    "snapshot": 2,
    "unpin": 2,
    "compact": 1,
    "checkpoint": 1,
    "vacuum": 3,
}
MOST_PINS = 4
REVISED_AT_ONCE = 40
KILL_TRIES = 4
READY, DONE = "ready\n", "done\n"


@dataclass
class Hands:
    """A lake as one process holds it; its known clock stands at an operation's time."""

    root: str
    number: int

    def __post_init__(self) -> None:
        self.store = Store(self.root, fsync=False)
        self.clock = SteppedClock(BEGIN + self.number * timedelta(minutes=1))
        self.tables = Tables(self.store, self.clock)

    def publish(self, rows: pl.DataFrame) -> Published:
        """Publish bars of one timeframe."""
        bars, revisions = self.tables[BARS.name], self.tables[BAR_REVISIONS.name]
        return publish_bars(bars, revisions, rows, known=self.clock.known())


def operate(root: str, seed: int, number: int, what: str, first: str) -> None:
    """Do operation ``number``; done twice it has the outcome of once.

    What it does depends on the seed, its number and the first snapshot alone.
    """
    hands = Hands(root, number)
    dice = random.Random(f"{seed} {number}")
    if what == "revise":
        hands.publish(revised_rows(hands, dice, number, first))
    elif what in ("append", "again"):
        hands.publish(appended_rows(number if what == "append" else 1))
    elif what == "snapshot":
        create_snapshot(hands.tables, label="soak")
    elif what == "unpin":
        others = sorted(set(pinned_ids(hands.store)) - {first})
        if len(others) >= MOST_PINS:
            unpin(hands, dice.choice(others))
    elif what == "compact":
        compact_all(hands)
    elif what == "checkpoint":
        for table in standing(hands):
            table.checkpoint()
    else:
        vacuum_all(hands)


def revised_rows(hands: Hands, dice: random.Random, number: int, first: str) -> pl.DataFrame:
    """Return bars of the first snapshot with another volume, which tells who revised them."""
    held = lake.open(hands.root, snapshot=first)
    stream = dice.choice(streams_of(held))
    rows = bars_of_stream(held, stream)
    at = dice.randrange(max(1, rows.height - 5_000))
    chosen = sorted(dice.sample(range(at, min(rows.height, at + 5_000)), REVISED_AT_ONCE))
    kept = rows[chosen].filter(pl.col("year") == rows[chosen]["year"][0])
    return kept.with_columns(volume=pl.lit(float(number))).drop("known_from")


def appended_rows(number: int) -> pl.DataFrame:
    """Return ten minutes that nobody else writes."""
    return bars_of([Row(number * 10 + minute, 100.0 + minute, 1, APPENDED) for minute in range(10)])


def streams_of(lk: lake.Lake) -> list[tuple[str, str]]:
    """Return the streams that a lake had at first."""
    told = lk.scan(BARS.name).select("instrument_id", "timeframe").unique().collect()
    return sorted(row for row in told.iter_rows() if row[0] != APPENDED)


def bars_of_stream(lk: lake.Lake, stream: tuple[str, str]) -> pl.DataFrame:
    """Return all bars of a stream, in order."""
    return lk.bars(stream[0], timeframe=stream[1]).collect()


@dataclass
class Soak:
    """One run: a lake, its first snapshot, and what its heads must hold.

    Attributes:
        root: Where the lake is, or will be.
        seed: Decides everything.
        say: Hears how it goes.
        ceph: The server below, where it may be killed.
        generated: Whether to use the generated tape though a recorded one is there.
    """

    root: str
    seed: int
    say: Callable[[str], object]
    ceph: Ceph | None = None
    generated: bool = False
    first: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[tuple[str, str], str] = field(default_factory=dict)
    volumes: dict[tuple[str, str], dict[datetime, float]] = field(default_factory=dict)
    appended: set[int] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def fill(self) -> None:
        """Make the lake from a tape, and pin it."""
        recorded = (RECORDED / "tape.toml").is_file() and not self.generated
        tape = Tape.load(RECORDED) if recorded else GeneratedTape(self.seed)
        asyncio.run(_backfilled(self.root, tape))
        hands = Hands(self.root, 0)
        self.first = create_snapshot(hands.tables, label=ORIGIN_LABEL).snapshot_id
        lk = lake.open(self.root, snapshot=self.first)
        for stream in streams_of(lk):
            rows = bars_of_stream(lk, stream)
            self.shown[stream] = frame_hash(rows)
            self.volumes[stream] = dict(rows.select("open_time", "volume").iter_rows())
        self.say(f"pinned {self.first}: {sum(map(len, self.volumes.values()))} bars")

    def run(self, steps: int, *, kills: int = 0, gateway_kills: int = 0) -> None:
        """Do so many operations, some of them disturbed."""
        dice = random.Random(self.seed)
        struck = dice.sample(range(1, steps + 1), kills + gateway_kills)
        killed, cut = set(struck[:kills]), set(struck[kills:])
        owed = 0
        began = time.monotonic()
        for number in range(1, steps + 1):
            what = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            self.counts[what] += 1
            owed += number in killed
            if owed:
                owed -= self._killed(number, what)
            if number in cut and self.ceph is not None:
                self._cut_off(number, what, dice)
            operate(self.root, self.seed, number, what, self.first)
            self._note(number, what)
            self.check(deep=number % 50 == 0 or number == steps)
            if number % 50 == 0:
                took = time.monotonic() - began
                self.say(f"{number} of {steps} operations, {took:.0f} s, {dict(self.counts)}")
        assert not owed, f"{owed} of {kills} kills came too late: {dict(self.counts)}"

    def _note(self, number: int, what: str) -> None:
        """Bring the model to what the heads must hold."""
        if what == "revise":
            dice = random.Random(f"{self.seed} {number}")
            rows = revised_rows(Hands(self.root, number), dice, number, self.first)
            stream = (rows["instrument_id"][0], rows["timeframe"][0])
            for opened in rows["open_time"]:
                self.volumes[stream][opened] = float(number)
        elif what in ("append", "again"):
            self.appended.add(number if what == "append" else 1)

    def _killed(self, number: int, what: str) -> bool:
        """Let another process do the operation and kill it on the way; tell whether it died so.

        One that is done before its kill is begun again, with less time. Some operations do
        next to nothing; then the next one is killed as well.
        """
        # Dice of its own: how often it is tried depends on the machine, what follows must not.
        dice = random.Random(f"{self.seed} kill {number}")
        for attempt in range(KILL_TRIES):
            if self._died(number, what, dice.uniform(0.0, 0.3) / 4**attempt):
                self.counts["writer killed"] += 1
                return True
            self.counts["too late"] += 1
        return False

    def _died(self, number: int, what: str, after_seconds: float) -> bool:
        """Begin the operation in another process, kill it; tell whether that came in time."""
        command = [sys.executable, __file__, "--operate", self.root, str(self.seed), str(number)]
        process = subprocess.Popen([*command, what, self.first], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        begun = process.stdout.readline()
        time.sleep(after_seconds)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        assert begun == READY, f"{what} did not begin"
        assert process.returncode in (0, -signal.SIGKILL), f"{what} failed by itself"
        return DONE not in rest

    def _cut_off(self, number: int, what: str, dice: random.Random) -> None:
        """Do the operation while the gateway is killed; it may fail, by name."""
        assert self.ceph is not None
        timer = threading.Timer(dice.uniform(0.0, 0.5), self.ceph.kill_gateway)
        timer.start()
        try:
            operate(self.root, self.seed, number, what, self.first)
        except (StorageError, OSError, pl.exceptions.PolarsError) as error:
            # A LazyFrame that is collected by its reader fails as Polars fails.
            self.counts[f"failed: {type(error).__name__}"] += 1
        timer.join()
        self.ceph.start_gateway()
        self.counts["gateway killed"] += 1

    def check(self, *, deep: bool = False) -> None:
        """Check that the first snapshot is what it was."""
        hands = Hands(self.root, 0)
        manifest = load_manifest(hands.store, self.first)
        verify(hands.store, manifest, level="deep" if deep else "quick")
        lk = lake.open(self.root, snapshot=self.first)
        for stream, expected in self.shown.items():
            if deep or stream == min(self.shown):
                assert frame_hash(bars_of_stream(lk, stream)) == expected, stream

    def finish(self) -> None:
        """Check the heads, the files that stand, and that a flipped byte is found."""
        hands = Hands(self.root, 0)
        vacuum_all(hands)
        standing_files, needed = data_files(hands), reachable(hands)
        assert standing_files == needed, standing_files ^ needed
        heads = lake.open(self.root)
        for stream, volumes in self.volumes.items():
            rows = bars_of_stream(heads, stream)
            assert dict(rows.select("open_time", "volume").iter_rows()) == volumes, stream
        if self.appended:
            extra = bars_of_stream(heads, (APPENDED, "1m"))
            assert extra.height == 10 * len(self.appended)
        for snapshot_id in pinned_ids(hands.store):
            verify(hands.store, load_manifest(hands.store, snapshot_id))
        self.check(deep=True)
        self._flip_a_byte(hands)
        took = time.monotonic() - self.began
        self.say(
            f"{len(needed)} files stand, all of them needed; {dict(self.counts)}; took {took:.0f} s"
        )

    def _flip_a_byte(self, hands: Hands) -> None:
        dice = random.Random(self.seed)
        manifest = load_manifest(hands.store, self.first)
        pinned = manifest.tables[BARS.name]
        path = f"{pinned['path']}/{dice.choice(pinned['files'])['path']}"
        sound = hands.store.get(path) or b""
        at = dice.randrange(len(sound))
        hands.store.put(path, sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        found = ""
        try:
            verify(hands.store, manifest)
        except StorageError as error:
            found = str(error)
        hands.store.put(path, sound)
        assert path in found, f"a flipped byte of {path} was told as {found!r}"


async def _backfilled(root: str, tape: Tape) -> None:
    async with ReplayExchange(tape, limits=False) as twin:
        work = open_work(root, clock=twin.clock, origin=tape.origin, settings=Settings(fsync=False))
        access = Access(Venue.BINANCE, twin.base_url, limit=False)
        span = Span(datetime(2017, 8, 1, tzinfo=UTC), twin.clock.known())
        for canonical_id, timeframe in tape.bar_series(Venue.BINANCE, MarketType.SPOT):
            request = BackfillRequest(access, (canonical_id.ccxt,), (timeframe,), span)
            report = await backfill(work, request)
            for failure in report.failures:
                raise failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak a lake, or do one operation for a soak that means to kill it."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--gateway-kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="soak a lake in this folder, without a server")
    parser.add_argument("--operate", nargs=5, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.operate:
        root, seed, number, what, first = told.operate
        _say(READY.strip())
        operate(root, int(seed), int(number), what, first)
        _say(DONE.strip())
        return 0
    _say(f"seed {told.seed}, {told.steps} operations")
    if told.folder is not None:
        _soaked(Soak(str(told.folder / "lake"), told.seed, _say), told)
        return 0
    from s3_support import Ceph

    with tempfile.TemporaryDirectory(prefix="tidemark-soak-") as folder:
        ceph = Ceph(Path(folder) / "ceph")
        ceph.up()
        try:
            os.environ.update(ceph.environment())
            _soaked(Soak(f"s3://{ceph.make_bucket()}/lake", told.seed, _say, ceph), told)
        finally:
            ceph.down()
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _soaked(soak: Soak, told: Any) -> None:
    soak.fill()
    soak.run(told.steps, kills=told.kills, gateway_kills=told.gateway_kills if soak.ceph else 0)
    soak.finish()


if __name__ == "__main__":
    sys.exit(main())
