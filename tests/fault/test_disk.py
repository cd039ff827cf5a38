"""A full and a read-only disk, made of a small tmpfs where the system lets us mount one."""

from __future__ import annotations

import os
import subprocess

import pytest
from kernel_support import BTC, Kernel, Row, series

from contracts.errors import StoreUnavailableError


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of its own of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tidemark", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no tmpfs here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_told(error, sign):
    text = str(error.value)
    assert sign in text
    assert "\n" not in text
    assert error.value.remedy


def test_a_full_disk_is_named_and_nothing_half_written_is_seen(small_disk):
    kernel = Kernel(small_disk / "lake")
    kernel.publish(series(range(10)))
    kernel.observe(0, 10)
    before, versions = kernel.lake().bars(BTC, timeframe="1m").collect(), kernel.versions()
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - 4096))

    for work in (
        lambda: kernel.publish([Row(3, 9.0), *series(range(10, 3000))]),
        lambda: kernel.publish(series(range(10, 3000))),
    ):
        with pytest.raises(StoreUnavailableError) as error:
            work()
        assert_told(error, "No space left on device")
        assert "Free some space" in error.value.remedy
    assert kernel.lake().bars(BTC, timeframe="1m").collect().equals(before)
    assert Kernel(small_disk / "lake").versions() | {"silver.bar_revisions": -1} == versions

    ballast.unlink()
    assert kernel.publish([Row(3, 9.0), *series(range(10, 3000))]).new == 2990


def test_a_full_disk_at_the_commit_itself(small_disk):
    """The data file still fits, its commit does not, wherever the limit falls."""
    kernel = Kernel(small_disk / "lake")
    kernel.publish(series(range(10)))
    ballast = small_disk / "ballast"
    refused = []
    for spare in range(3):
        fs = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(0, (fs.f_bavail - spare) * fs.f_frsize)))
        try:
            kernel.publish([Row(20, 5.0)])
        except StoreUnavailableError as error:
            refused.append(str(error))
        ballast.unlink()
    assert refused
    assert all("No space left" in told for told in refused)
    kernel.publish([Row(20, 5.0)])
    assert kernel.lake().bars(BTC, timeframe="1m").collect().height == 11


def test_a_read_only_lake_reads_and_refuses_to_write(small_disk):
    kernel = Kernel(small_disk / "lake")
    kernel.publish(series(range(10)))
    pinned = kernel.snapshot().snapshot_id
    made = subprocess.run(
        ["mount", "-o", "remount,ro", str(small_disk)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no remount here: {made.stderr.strip()}")
    try:
        for options in ({}, {"snapshot": pinned}, {"snapshot": pinned, "verify": True}):
            assert kernel.lake(**options).bars(BTC, timeframe="1m").collect().height == 10
        assert kernel.publish(series(range(10))).identical == 10
        for work in (
            lambda: kernel.publish([Row(3, 9.0)]),
            lambda: kernel.observe(0, 10),
            kernel.snapshot,
            lambda: Kernel(small_disk / "other"),
        ):
            with pytest.raises(StoreUnavailableError) as error:
                work()
            assert_told(error, "Read-only file system")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
