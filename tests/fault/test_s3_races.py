"""Races on a real S3 server: two processes at once, and a gateway that is killed under them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from kernel_support import Kernel, quarantine_of
from processes import child, finished
from test_history import (
    test_four_writers_lose_and_double_nothing_while_snapshots_are_taken,
)
from test_races import (
    entered,
    gate,
    test_a_stale_handle_compares_again,
    test_snapshots_under_a_writer_are_consistent_cuts,
    test_two_processes_create_one_table,
    test_two_processes_publish_one_span,
    test_two_processes_revise_one_bar,
    wait_for,
)

from contracts.errors import CommitConflictError, StoreUnavailableError
from contracts.tables import QUARANTINE

__all__ = [
    "gate",
    "test_a_stale_handle_compares_again",
    "test_four_writers_lose_and_double_nothing_while_snapshots_are_taken",
    "test_snapshots_under_a_writer_are_consistent_cuts",
    "test_two_processes_create_one_table",
    "test_two_processes_publish_one_span",
    "test_two_processes_revise_one_bar",
]
KILLS = 3
APPENDS = 25


@pytest.fixture
def lake_root(s3_root):
    return s3_root


@pytest.fixture
def tokens():
    return 3


@pytest.fixture
def pause():
    return 0.3


def append_tokens(root, gate_path, who):
    """Append tokens one by one; say which were acknowledged, and which may or may not be."""
    kernel = entered(root, gate_path, who)
    acknowledged, tried = [], []
    for number in range(APPENDS):
        token = number + (1000 if who == "b" else 0)
        tried.append(token)
        try:
            if kernel.quarantine(quarantine_of([token])).changed:
                acknowledged.append(token)
        except (StoreUnavailableError, CommitConflictError):
            continue
    sys.stdout.write(json.dumps([acknowledged, tried]))


def test_a_gateway_killed_under_two_writers_loses_and_doubles_nothing(own_ceph, gate, monkeypatch):
    for name, value in own_ceph.environment().items():
        monkeypatch.setenv(name, value)
    root = f"s3://{own_ceph.make_bucket()}/lake"
    Kernel(root).quarantine(quarantine_of([9_999]))
    writers = [child(Path(__file__), "append_tokens", root, gate, who) for who in "ab"]
    for who in "ab":
        wait_for(f"{gate}-{who}")
    gate.touch()
    kills = 0
    while kills < KILLS and any(writer.poll() is None for writer in writers):
        time.sleep(0.7)
        own_ceph.kill_gateway()
        own_ceph.start_gateway()
        kills += 1
    told = [json.loads(finished(writer)) for writer in writers]
    assert kills >= 2, "the writers were done before the gateway could be killed"
    acknowledged = {token for each in told for token in each[0]}
    tried = {token for each in told for token in each[1]} | {9_999}
    rows = Kernel(root).rows(QUARANTINE)
    stored = {int(each, 16) for each in rows["quarantine_id"]}
    assert acknowledged <= stored <= tried
    assert rows.height == len(stored)
    assert len(acknowledged) > APPENDS, "hardly anything was acknowledged"
    figures = f"{len(tried) - 1} tried, {len(acknowledged)} acknowledged, {len(stored) - 1} stored"
    print(f"gateway killed {kills} times: {figures}")  # noqa: T201 - what was found out
