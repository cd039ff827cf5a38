"""Peak resident memory of a backfill in a process of its own.

The exchange runs in another process, and the tape is written by this one, so that neither
counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import benchmarks
from benchmarks.backfill import END, request
from benchmarks.data import SYMBOLS, span_of_days, write_tape
from benchmarks.lakes import work_at
from benchmarks.measure import Result, Target, run_async
from contracts.time import SteppedClock
from flows.backfill import backfill
from flows.replay.process import run_in_process

if TYPE_CHECKING:
    from benchmarks.measure import Options

GIGABYTE = 1e9


def run(options: Options) -> list[Result]:
    days = options.pick(tiny=2, default=365, slow=8 * 365 + 2)
    tape = write_tape(options.folder / "tape", SYMBOLS[:1], span_of_days(END, days))
    root = Path(benchmarks.__file__).parents[1]
    with run_in_process(tape, limits=False) as base_url:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory"]
        command += [str(options.folder / "lake"), base_url, str(days)]
        done = subprocess.run(
            command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"the backfill failed: {done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    return [
        Result(
            f"peak of a backfill of {days / 365:.2g} years of 1m, 1 symbol",
            f"{told['peak'] / 1e6:.0f} MB",
            "1000 MB",
            told["peak"] / GIGABYTE,
            None,
            None,
            Target(1.0),
            told,
            f"{told['new']} bars; {told['before'] / 1e6:.0f} MB before the backfill began",
        )
    ]


def peak_bytes() -> int:
    """Return this process's peak resident memory.

    Linux keeps it by program, while ``getrusage`` would tell that of the parent where the
    parent was larger when it forked.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _measured(root: str, base_url: str, days: str) -> None:
    """Run the backfill in this process and print its peak."""
    before = peak_bytes()
    span = span_of_days(END, int(days))
    work = work_at(Path(root), SteppedClock(END + timedelta(minutes=1)))
    report = run_async(backfill(work, request(base_url, SYMBOLS[:1], span, limit=False)))
    for failure in report.failures:
        raise failure
    if report.new != span.duration // timedelta(minutes=1):
        raise AssertionError(f"the backfill stored {report.new} bars")
    print(json.dumps({"peak": peak_bytes(), "before": before, "new": report.new}))


if __name__ == "__main__":
    _measured(*sys.argv[1:])
