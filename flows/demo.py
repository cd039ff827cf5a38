"""The demo: the whole path on the built-in tape, each claim checked as it is made."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from contracts.time import iso, parse_time
from flows.demo_stage import Stage, check
from flows.replay.generated import GeneratedTape

if TYPE_CHECKING:
    import polars as pl

_BTC = "BTC-USDT-SPOT.BINANCE"
_BACKFILL = (
    *("backfill", "--symbols", "BTC/USDT", "ETH/USDT", "--timeframes", "1m", "1h"),
    *("--start", "2026-03-01", "--replay", "generated"),
)
_RECHECK = (
    *("backfill", "--symbols", "BTC/USDT", "--timeframes", "1m", "1h"),
    *("--start", "2026-03-04T06:00Z", "--recheck", "--replay", "generated"),
)
_BEFORE, _BETWEEN, _AFTER = "2026-03-04T10:05Z", "2026-03-04T11:00Z", "2026-03-04T12:30Z"
_REVISED = "2026-03-04T09:07Z"
_LOOK = (
    *("bars", _BTC, "--timeframe", "1m"),
    *("--start", "2026-03-04T09:06Z", "--end", "2026-03-04T09:09Z"),
)
_KILL_AT_ROWS = 4_000


def run_demo(root: str) -> None:
    """Run the demo in a lake of its own.

    Raises:
        LakeOriginError: Something that no demo made lies at the root.
        InvariantError: A claim does not hold.
    """
    began = time.monotonic()
    stage = Stage(root, origin=GeneratedTape().origin)
    stage.say(
        f"Tidemark's demo, in {root}: a replay exchange answers as Binance would, from a tape",
        "that is made from a seed. Nothing leaves this machine. Each line that begins with $ is",
        "a command that you can type.",
    )
    _fill(stage)
    _look(stage)
    pinned, before = _pin(stage)
    _revise(stage, pinned, before)
    _remember(stage)
    stage.heading("7. Is it still what was pinned? Every file and every row is hashed")
    stage.lake("snapshot", "verify", "--deep")
    _again(stage)
    _end(stage, pinned, time.monotonic() - began)


def _fill(stage: Stage) -> None:
    stage.heading(
        "1. Backfill, killed half-way",
        "Two instruments, 1m and 1h bars. One page a batch, so that there is time to kill it.",
    )
    now = ("--replay-now", _BEFORE)
    stored = stage.killed(
        *_BACKFILL, *now, rows=_KILL_AT_ROWS, environment={"LAKE_BATCH_PAGES": "1"}
    )
    stage.heading(
        "2. The same command again goes on where it stopped",
        "The ledger says what is known; only the rest is asked.",
    )
    told = json.loads(stage.lake(*_BACKFILL, *now, "--format", "json"))
    added = stage.bars() - stored
    check(added > 0, "the resumed backfill had something left to do")
    check(added <= sum(row["rows"] for row in told), "what was stored came from what was fetched")
    bars = stage.open().scan("silver.bars").collect()
    keys = bars.select("instrument_id", "timeframe", "open_time")
    check(not keys.is_duplicated().any(), "no bar is stored twice")
    stage.say(f"{stored:,} bars before the kill and {added:,} after it; none is there twice.")


def _look(stage: Stage) -> None:
    stage.heading(
        "3. What is not there, and what was refused",
        "The venue was down for two hours, and one bar's high lies below its close.",
    )
    printed = stage.lake("ledger", "--state", "missing", "quarantined")
    check(printed.count("missing") == 4, "the gap is found in all four streams")
    check(printed.count("quarantined") == 1, "the bad bar is found")
    columns = ("instrument_id", "timeframe", "event_time", "reasons", "row")
    printed = stage.lake("scan", "ops.quarantine", "--columns", *columns)
    check("2026-03-03" in printed, "the bad bar is kept with its reason")


def _pin(stage: Stage) -> tuple[str, pl.DataFrame]:
    stage.heading("4. Pin everything to one snapshot_id")
    printed = stage.lake("snapshot", "create", "--label", "before-revision", "--format", "json")
    pinned = str(json.loads(printed)["snapshot_id"])
    stage.lake(*_LOOK, "--snapshot", pinned)
    return pinned, stage.open(pinned).scan("silver.bars").collect()


def _revise(stage: Stage, pinned: str, before: pl.DataFrame) -> None:
    stage.heading(
        "5. Two and a half hours later: update, and the venue has revised a bar",
        "An update brings what is new; --recheck asks again for what is stored.",
    )
    old = _close(stage)
    stage.lake("update", "--replay", "generated", "--replay-now", _AFTER)
    check(_close(stage) == old, "an update alone does not ask again for what is stored")
    stage.lake(*_RECHECK, "--replay-now", _AFTER)
    check(_close(stage) != old, "the newest state shows the revised bar")
    stage.say("", "The newest state has the new values; the snapshot reads as it did:")
    stage.lake(*_LOOK)
    stage.lake(*_LOOK, "--snapshot", pinned)
    after = stage.open(pinned).scan("silver.bars").collect()
    check(before.equals(after), "the pinned read is the same before and after the revision")
    stage.say(f"All {after.height:,} pinned bars are equal to what was read before the revision.")


def _remember(stage: Stage) -> None:
    stage.heading(
        "6. What was known when",
        "Both versions of the bar, each with the time in which it was the known one:",
    )
    revised = ("--start", _REVISED, "--end", "2026-03-04T09:08Z")
    shown = ("--columns", "open_time", "close", "volume", "known_from")
    stage.lake("bars", _BTC, "--timeframe", "1m", *revised, *shown, "--history")
    stage.say("", "And the same bar, as the lake knew it at 11:00:")
    stage.lake("bars", _BTC, "--timeframe", "1m", *revised, *shown, "--known-at", _BETWEEN)
    history = stage.open().bar_history(_BTC, timeframe="1m", start=_REVISED).collect()
    versions = history.filter(history["open_time"] == parse_time(_REVISED))
    check(versions.height == 2, "both versions of the revised bar are kept")
    check(_close(stage, _BETWEEN) == versions["close"][0], "known_at shows what was known then")


def _again(stage: Stage) -> None:
    stage.heading("8. A second run has nothing to do, and writes nothing")
    before = stage.versions()
    stage.lake(*_BACKFILL, "--replay-now", _AFTER)
    after = stage.versions()
    check(before == after, f"the second run made no commit: {before} {after}")
    stage.say(
        "No commit to any table but the log of runs:",
        "  " + ", ".join(f"{name} {version}" for name, version in after.items()),
    )


def _close(stage: Stage, known_at: str | None = None) -> float:
    rows = stage.open().bars(_BTC, timeframe="1m", start=_REVISED, known_at=known_at)
    return float(rows.head(1).collect()["close"][0])


def _end(stage: Stage, pinned: str, seconds: float) -> None:
    lk = stage.open()
    bars = lk.scan("silver.bars").select("open_time").collect()
    last = parse_time(bars["open_time"].max())  # type: ignore[arg-type]
    stage.heading("Done: every claim above was checked")
    root = stage.root
    stage.say(
        f"  {bars.height:,} bars of 4 streams, the newest opens at {iso(last)}",
        "  killed and resumed without a loss or a double, 1 bad bar in quarantine,",
        "  1 gap named in the ledger, 1 revision in two timeframes, kept in both versions,",
        f"  1 snapshot ({pinned}) that read the same before and after, {seconds:.0f} s",
        "",
        "Try next:",
        f"  lake bars '*' --timeframe 1h --limit 5 --root {root}",
        f"  lake ledger --root {root}",
        f"  lake snapshot show {pinned} --root {root}",
        f"  lake update --replay generated --root {root}",
        "and from the venue itself, into ./lakehouse:",
        "  lake backfill --symbols BTC/USDT ETH/USDT --timeframes 1m 1h --start 2026-03-24",
        "  lake update",
    )
