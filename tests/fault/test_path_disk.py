"""A backfill meets a full or a read-only disk: told in one line, and made good afterwards."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess

import pytest
from path_support import contents, run_backfill
from test_disk import small_disk  # noqa: F401 - a fixture

import lake
from contracts.errors import StoreUnavailableError
from contracts.tables import BARS
from flows.cli import main
from flows.replay.generated import GeneratedTape
from flows.replay.process import run_in_process
from flows.replay.server import ReplayExchange

START, END = "2026-03-01", "2026-03-02"


@pytest.fixture(scope="module")
def base_url():
    with run_in_process(days=1, limits=False) as base_url:
        yield base_url


@pytest.fixture
def backfill(base_url, monkeypatch, capsys):
    """Return a function that backfills a lake, and gives the exit code and what stderr told."""
    monkeypatch.setenv("LAKE_BATCH_PAGES", "1")
    monkeypatch.setenv("LAKE_FSYNC", "false")
    asked = ["--symbols", "BTC/USDT", "--timeframes", "1m", "1h", "--replay", base_url]
    asked += ["--start", START, "--end", END, "--no-limits"]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(root):
        code = main(["backfill", *asked, "--root", str(root)])
        return code, capsys.readouterr().err.splitlines()

    yield run
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what a run leaves that meets no trouble."""
    root = tmp_path_factory.mktemp("whole") / "lake"

    async def fill():
        async with ReplayExchange(GeneratedTape(days=1), limits=False) as twin:
            await run_backfill(root, twin, START, END, timeframes=("1m", "1h"))

    asyncio.run(fill())
    return contents(root)


@pytest.fixture
def disk(request):
    return Disk(request.getfixturevalue("small_disk"))


class Disk:
    """A file system of its own that can be resized and made read-only."""

    def __init__(self, folder):
        self.folder = folder

    def has(self, kilobytes):
        self.remount(f"size={kilobytes}k")

    def remount(self, options):
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no remount here: {made.stderr.strip()}")


def assert_refused(ended, sign, remedy):
    code, told = ended
    assert code == StoreUnavailableError.exit_code == 5
    errors = [line for line in told if line.startswith("error: ")]
    assert errors == told[-1:], "one line says it, and it comes last"
    assert sign in errors[0]
    assert remedy in errors[0]
    assert errors[0].endswith(f"[{StoreUnavailableError.code}]")
    assert not any("Traceback" in line for line in told)


@pytest.mark.parametrize("kilobytes", range(40, 680, 80))
def test_a_disk_that_is_full_at_some_step(backfill, whole, disk, kilobytes):
    root = disk.folder / "lake"
    disk.has(kilobytes)
    assert_refused(backfill(root), "No space left on device", "Free some space")
    disk.has(4096)
    assert backfill(root)[0] == 0
    assert contents(root) == whole


def test_a_disk_that_grows_by_a_little_after_each_refusal(backfill, whole, disk):
    """Each run goes on where the disk stopped the one before; none undoes or doubles a thing."""
    root, stored = disk.folder / "lake", [0]
    for kilobytes in itertools.count(100, 100):
        assert kilobytes < 4096
        disk.has(kilobytes)
        ended = backfill(root)
        stored.append(lake.open(root).scan(BARS.name).collect().height)
        if ended[0] == 0:
            break
        assert_refused(ended, "No space left on device", "Free some space")
    assert len(set(stored)) >= 3, "the disk was never full between two batches"
    assert stored == sorted(stored)
    assert contents(root) == whole


def test_a_read_only_disk(backfill, whole, disk):
    """Refused where there is no lake, and where there is half of one; nothing is changed."""
    root = disk.folder / "lake"
    disk.remount("ro")
    assert_refused(backfill(root), "Read-only file system", "Mount it writable")
    disk.remount("rw,size=400k")
    assert backfill(root)[0] == 5
    disk.remount("ro,size=4096k")
    before = contents(root)
    assert_refused(backfill(root), "Read-only file system", "Mount it writable")
    assert contents(root) == before
    disk.remount("rw")
    assert backfill(root)[0] == 0
    assert contents(root) == whole
