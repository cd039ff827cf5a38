"""``import lake`` beside ``import polars, deltalake``, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import benchmarks
from benchmarks.measure import Result, Took, alternate, cost

if TYPE_CHECKING:
    from benchmarks.measure import Options

HEAVY = ("prefect", "ccxt", "pandera", "boto3", "pandas")
_CODE = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); import {what}; "
    "print(time.perf_counter() - wall, time.process_time() - cpu); import sys; "
    "print(*[name for name in {heavy} if name in sys.modules])"
)


def run(options: Options) -> list[Result]:
    loaded: set[str] = set()

    def seconds(what: str) -> Took:
        code = _CODE.format(what=what, heavy=HEAVY)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=Path(benchmarks.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        took, names = done.stdout.splitlines()
        if what == "lake":
            loaded.update(names.split())
        return Took(*map(float, took.split()))

    took = alternate(
        options.pick(tiny=1, default=9, slow=15),
        {
            "lake": lambda: seconds("lake"),
            "floor": lambda: seconds("polars, deltalake"),
        },
        warm=options.size != "tiny",
    )
    heavy = Result(
        "heavy modules loaded",
        " ".join(sorted(loaded)) or "none",
        "none",
        note="" if not loaded else f"MISSED: {', '.join(sorted(loaded))} must not be loaded",
        raw={"loaded": sorted(loaded), "looked_for": list(HEAVY)},
    )
    line = cost("import lake / polars, deltalake", took["lake"], took["floor"], target=1.6)
    return [line, heavy]
