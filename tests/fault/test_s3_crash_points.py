"""kill -9 between storage operations on a real S3 server: a rerun ends where nobody died."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import test_crash_points
from kernel_support import Kernel, child, content, copy_lake
from test_crash_points import LATER, Countdown, assert_readable_between, start_lake, work

EVERY = 2


def test_killed_between_operations_and_run_again_nothing_differs(s3_root):
    """Every second operation is died before; the folder's test dies before each."""
    start = f"{s3_root}/start"
    start_lake(start)
    whole, countdown = start_lake_copy(start, f"{s3_root}/whole"), Countdown(-1)
    with pytest.MonkeyPatch.context() as patch:
        countdown.install(patch.setattr)
        snapshot_id = work(whole)
    expected = content(whole)
    assert countdown.seen >= 15

    def crash(left):
        root = f"{s3_root}/crash-{left}"
        copy_lake(start, root)
        process = child(Path(test_crash_points.__file__), "run_and_die", root, left)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"operation {left} was not reached"
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, countdown.seen + 1, EVERY)))
    for root in roots:
        assert_readable_between(Kernel(root, known=LATER))
        rerun = Kernel(root, known=LATER)
        assert work(rerun) == snapshot_id, root
        assert content(rerun) == expected, root


def start_lake_copy(start, root):
    copy_lake(start, root)
    return Kernel(root, known=LATER)
