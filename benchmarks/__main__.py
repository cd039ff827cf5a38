"""``python -m benchmarks [NAMES...] [--slow] [--json FILE]``: measure, and print one table.

Each benchmark runs in a fresh process. A target that is missed is shown, not an error: the
exit code is 1 only when a benchmark crashes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import benchmarks
from benchmarks.measure import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("importing", "publish", "scan", "snapshots", "backfill", "memory", "update")
_HEADER = ("benchmark", "what", "measured", "floor", "ratio", "of cpu", "target", "ok?")
_LEGEND = (
    "best (median) of alternating repetitions; `of cpu` is the ratio of the best CPU seconds of "
    "the measuring process, which a busy machine disturbs less"
)
_ROOT = Path(benchmarks.__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks and print their table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--slow", action="store_true", help="measure in full; takes long")
    parser.add_argument("--tiny", action="store_true", help="only see that they run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--child", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(NAMES)}")
    size = "slow" if options.slow else "tiny" if options.tiny else "default"
    if options.child is not None:
        return _measure(options.names[0], size, options.child)
    told, crashed = {}, []
    for name in options.names or NAMES:
        lines = _in_child(name, size)
        if lines is None:
            crashed.append(name)
        else:
            told[name] = lines
    print(table(told))
    if size == "tiny":
        print("  tiny: the figures mean nothing")
    for name in crashed:
        print(f"{name} crashed", file=sys.stderr)
    if options.json is not None:
        report = {"machine": machine(), "size": size, "crashed": crashed, "results": told}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if crashed else 0


def _measure(name: str, size: str, file: Path) -> int:
    """Run one benchmark in this process and write its lines to a file."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix=f"tidemark-{name}-") as folder:
        results = import_module(f"benchmarks.{name}").run(Options(Path(folder), size))
    file.write_text(json.dumps([result.as_json() for result in results]))
    return 0


def _in_child(name: str, size: str) -> list[dict[str, Any]] | None:
    """Run one benchmark in a fresh process; None when it crashed."""
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks", name, "--child", str(file)]
        command += [] if size == "default" else [f"--{size}"]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
        if done.returncode != 0 or not file.is_file():
            return None
        lines: list[dict[str, Any]] = json.loads(file.read_text())
    return lines


def table(told: dict[str, list[dict[str, Any]]]) -> str:
    """Return the lines of all benchmarks as a table: best of each, the median in brackets."""
    rows = [_HEADER]
    notes: dict[str, None] = {}
    for name, lines in told.items():
        for line in lines:
            rows.append((name, line["what"], line["measured"], line["floor"], *_verdict(line)))
            notes |= {f"  {name}: {line['note']}": None} if line["note"] else {}
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    drawn = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*drawn, "", _LEGEND, *notes])


def _verdict(line: dict[str, Any]) -> tuple[str, str, str, str]:
    ratio, median, cpu = line["ratio"], line["median_ratio"], line["cpu_ratio"]
    told = "-" if ratio is None else f"{ratio:.2f}" + (f" ({median:.2f})" if median else "")
    ok = {True: "yes", False: "MISSED", None: "-"}[line["ok"]]
    return told, f"{cpu:.2f}" if cpu else "-", line["target"] or "-", ok


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    from importlib.metadata import version

    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "polars": version("polars"),
        "deltalake": version("deltalake"),
    }


if __name__ == "__main__":
    sys.exit(main())
