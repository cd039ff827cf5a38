"""Four writers and a snapshotter at once: every cut is closed, in time, and forgets nothing."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from history_support import Seen, Write, dumped, loaded, seen_by, violations, write_tokens
from kernel_support import Kernel, Row
from processes import child, finished

from lake.tables import Table

WRITERS = 4


@pytest.fixture
def tokens():
    """Return how many tokens each writer takes along the path."""
    return 8


def write(root, gate, who, tokens):
    """Write every fourth token, from the moment that the gate opens."""
    kernel = Kernel(root)
    Path(f"{gate}-{who}").touch()
    wait_for(Path(gate))
    own = range(int(who), int(tokens) * WRITERS, WRITERS)
    sys.stdout.write(dumped(write_tokens(kernel, own)))


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def pause():
    """Return how many seconds a snapshot waits before it looks at a table."""
    return 0.1


def dawdle(monkeypatch, pause):
    """Let a snapshot look at one table after the other so slowly that writers come between."""
    head = Table.head

    def slow_head(table):
        time.sleep(pause)
        return head(table)

    monkeypatch.setattr(Table, "head", slow_head)


def snapshot(kernel):
    began = time.monotonic()
    manifest = kernel.snapshot()
    return seen_by(kernel, manifest, began, time.monotonic())


def test_four_writers_lose_and_double_nothing_while_snapshots_are_taken(
    lake_root, tmp_path, tokens, pause, monkeypatch
):
    kernel = Kernel(lake_root)
    kernel.publish([Row(10_000, 1.0)])
    gate = tmp_path / "gate"
    processes = [
        child(Path(__file__), "write", lake_root, gate, who, tokens) for who in range(WRITERS)
    ]
    for who in range(WRITERS):
        wait_for(Path(f"{gate}-{who}"))
    dawdle(monkeypatch, pause)
    gate.touch()
    cuts = []
    while any(process.poll() is None for process in processes):
        cuts.append(snapshot(kernel))
    writes = [each for process in processes for each in loaded(finished(process))]
    cuts.append(snapshot(kernel))

    assert len(writes) == WRITERS * tokens * 3
    assert len({cut.name for cut in cuts}) >= 3
    assert list(violations(writes, cuts)) == []
    history = kernel.lake().bar_history("*", timeframe="1m").collect()
    assert history.height == 1 + 2 * WRITERS * tokens
    assert cuts[-1].claimed == set(range(WRITERS * tokens))


WRITES = [
    Write(1, "appended", 0.0, 1.0),
    Write(1, "revised", 1.0, 2.0),
    Write(1, "claimed", 2.0, 3.0),
    Write(2, "appended", 9.0, 10.0),
]
ONE = frozenset({1})
SOUND = Seen("cut", 4.0, 5.0, appended=ONE, revised=ONE, copied=ONE, claimed=ONE)


def test_a_sound_history_has_no_violation():
    later = replace(SOUND, name="later", began=6.0, ended=7.0)
    assert list(violations(WRITES, [SOUND, later])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"claimed": frozenset({1, 3})}, "not in the bars"),
        ({"copied": frozenset()}, "is lost"),
        ({"revised": frozenset()}, "whose revision is not in the bars"),
        ({"claimed": frozenset()}, "acknowledged as claimed before, and lost"),
        ({"appended": frozenset({1, 2})}, "before anybody did it"),
        ({"doubled": ONE}, "there twice"),
    ],
)
def test_the_checker_finds_each_kind_of_violation(change, told):
    assert any(told in found for found in violations(WRITES, [replace(SOUND, **change)]))


def test_the_checker_finds_what_a_later_cut_forgot():
    later = Seen("later", 6.0, 7.0)
    assert any("no longer appended" in found for found in violations([], [SOUND, later]))
