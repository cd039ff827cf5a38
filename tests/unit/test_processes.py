"""The processes that crash tests run tell how they ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import polars as pl
import pytest
from processes import _threads, child, finished, killed

HERE = Path(__file__)


def told(name):
    sys.stdout.write(os.environ[name])


def fail(why):
    raise ValueError(why)


def die(number):
    os.kill(os.getpid(), int(number))


def test_a_child_has_the_environment_of_the_moment_it_was_started(monkeypatch):
    for text in ("first", "second"):
        monkeypatch.setenv("TIDEMARK_TOLD", text)
        assert finished(child(HERE, "told", "TIDEMARK_TOLD")) == text


def test_a_failure_is_told_and_no_death():
    with pytest.raises(AssertionError, match="nobody knows"):
        finished(child(HERE, "fail", "nobody knows"))
    with pytest.raises(AssertionError, match=r"fail\(x\) ended with 1: Traceback"):
        killed(child(HERE, "fail", "x"))


def test_a_death_by_another_signal_is_not_kill_9():
    killed(child(HERE, "die", int(signal.SIGKILL)))
    with pytest.raises(AssertionError, match="ended with -15"):
        killed(child(HERE, "die", int(signal.SIGTERM)))


def test_threads_that_a_fork_would_lose_are_seen():
    pl.DataFrame({"a": range(100_000)}).lazy().sort("a").collect()
    assert _threads()
