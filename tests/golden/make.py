"""Write the golden lake of this version: ``python tests/golden/make.py``.

Run once for each release, and commit what it wrote: ``tests/golden/<version>/lake``, a small
lake as that version writes it, and ``expected.json``, what that version reads of it. No later
version may change a file below it; ``tests/integration/test_golden.py`` reads them all.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from golden_support import shown  # noqa: E402
from kernel_support import (  # noqa: E402
    ETH,
    KNOWN,
    Kernel,
    Row,
    audits_of,
    quarantine_of,
    response_of,
    series,
)

from contracts.tables import State  # noqa: E402
from lake.snapshots import code_version  # noqa: E402


def write(folder: Path) -> None:
    """Write the lake and what is read of it."""
    kernel = Kernel(folder / "lake")
    kernel.land(response_of(b"[1]"), response_of(b"[2]", limit=2))
    kernel.quarantine(quarantine_of([5]))
    kernel.audit(audits_of(["ohlc", "gaps"]))
    kernel.publish([*series(range(20)), *series(range(8), instrument=ETH)])
    kernel.publish(series(range(3), close=90.0), timeframe="1h")
    kernel.observe(0, 20)
    kernel.observe(20, 25, State.MISSING, evidence="response 1")
    first = kernel.snapshot(label="golden")
    kernel.step(hours=1)
    kernel.land(response_of(b"[1]", at=KNOWN + timedelta(hours=1)))
    kernel.publish([Row(3, 200.0), Row(21, 201.0)])
    kernel.observe(21, 22)
    second = kernel.snapshot()
    expected = {
        "heads": shown(kernel.lake()),
        first.snapshot_id: shown(kernel.lake(snapshot=first.snapshot_id)),
        second.snapshot_id: shown(kernel.lake(snapshot=second.snapshot_id)),
    }
    text = json.dumps(expected, indent=1, sort_keys=True)
    (folder / "expected.json").write_text(text + "\n")


def main() -> int:
    """Write the golden lake of this version, unless it stands."""
    folder = HERE / code_version()
    if folder.exists():
        sys.stderr.write(f"{folder} stands already, and is never written again\n")
        return 2
    write(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
