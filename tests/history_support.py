"""A checker of concurrent histories: who wrote what when, against what snapshots saw.

Each token is a bar that its writer takes along the path: it appends the bar, revises it,
and claims it in the ledger. The times of all processes of a machine are comparable.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from kernel_support import BTC, MINUTE, START, Row

from contracts.tables import BAR_REVISIONS, BARS, LEDGER
from lake.ledger import fold
from lake.scan import read_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl
    from kernel_support import Kernel

    from lake.manifest import Manifest

STEPS = ("appended", "revised", "claimed")
FIRST, SECOND = 1.0, 2.0


@dataclass(frozen=True)
class Write:
    """One acknowledged step of a token."""

    token: int
    step: str
    began: float
    ended: float


@dataclass(frozen=True)
class Seen:
    """What a snapshot, or the heads, hold of each step, and when that was asked."""

    name: str
    began: float
    ended: float
    appended: frozenset[int] = field(default=frozenset())
    revised: frozenset[int] = field(default=frozenset())
    copied: frozenset[int] = field(default=frozenset())
    claimed: frozenset[int] = field(default=frozenset())
    doubled: frozenset[int] = field(default=frozenset())


def write_tokens(kernel: Kernel, tokens: Iterable[int]) -> list[Write]:
    """Take tokens along the path; return what was acknowledged."""
    done: list[Write] = []
    for token in tokens:
        kernel.step(seconds=1)
        steps = (
            lambda token=token: kernel.publish([Row(token, FIRST)]),
            lambda token=token: kernel.publish([Row(token, SECOND)]),
            lambda token=token: kernel.observe(token, token + 1),
        )
        for name, act in zip(STEPS, steps, strict=True):
            began = time.monotonic()
            act()
            done.append(Write(token, name, began, time.monotonic()))
    return done


def dumped(writes: Iterable[Write]) -> str:
    """Return writes as text, for another process."""
    return json.dumps([asdict(each) for each in writes])


def loaded(text: str) -> list[Write]:
    """Return the writes that ``dumped`` gave."""
    return [Write(**each) for each in json.loads(text)]


def seen_by(kernel: Kernel, manifest: Manifest, began: float, ended: float) -> Seen:
    """Return what a snapshot holds."""
    frames = {
        spec.name: read_files(kernel.store, spec, manifest.view(spec.name).files)
        for spec in (BARS, BAR_REVISIONS, LEDGER)
    }
    bars = frames[BARS.name].filter(instrument_id=BTC)
    claims = fold(frames[LEDGER.name]).filter(state="present")
    spans = zip(_minutes(claims["span_start"]), _minutes(claims["span_end"]), strict=True)
    minutes = _minutes(bars["open_time"])
    return Seen(
        manifest.snapshot_id,
        began,
        ended,
        appended=frozenset(minutes),
        revised=frozenset(_minutes(bars.filter(close=SECOND)["open_time"])),
        copied=frozenset(_minutes(frames[BAR_REVISIONS.name]["open_time"])),
        claimed=frozenset(minute for start, end in spans for minute in range(start, end)),
        doubled=frozenset(minute for minute in minutes if minutes.count(minute) > 1),
    )


def _minutes(moments: pl.Series) -> list[int]:
    return [(moment - START) // MINUTE for moment in moments]


def violations(writes: list[Write], cuts: list[Seen]) -> Iterator[str]:
    """Yield every way in which what was seen contradicts what was acknowledged."""
    for cut in cuts:
        yield from _not_closed(cut)
        yield from _not_in_time(writes, cut)
    for before in cuts:
        for after in cuts:
            if before.ended < after.began:
                yield from _forgotten(before, after)


def _not_closed(cut: Seen) -> Iterator[str]:
    for token in sorted(cut.claimed - cut.appended):
        yield f"{cut.name}: the ledger claims {token}, which is not in the bars"
    for token in sorted(cut.claimed - cut.revised):
        yield f"{cut.name}: the ledger claims {token}, whose revision is not in the bars"
    for token in sorted(cut.revised - cut.copied):
        yield f"{cut.name}: what replaced {token} stands, what it replaced is lost"
    for token in sorted(cut.doubled):
        yield f"{cut.name}: {token} is there twice"


def _not_in_time(writes: list[Write], cut: Seen) -> Iterator[str]:
    held = {"appended": cut.appended, "revised": cut.revised, "claimed": cut.claimed}
    for write in writes:
        there = write.token in held[write.step]
        if write.ended < cut.began and not there:
            yield f"{cut.name}: {write.token} was acknowledged as {write.step} before, and lost"
        if write.began > cut.ended and there:
            yield f"{cut.name}: {write.token} is {write.step} before anybody did it"


def _forgotten(before: Seen, after: Seen) -> Iterator[str]:
    for step in STEPS:
        for token in sorted(getattr(before, step) - getattr(after, step)):
            yield f"{after.name}: {token} is no longer {step}, as it was in {before.name}"
