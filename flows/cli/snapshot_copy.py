"""``lake snapshot export | import``: carry snapshots to another folder or bucket and back.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from flows.cli.options import COMMON, OUTPUT, Common, Output
from flows.cli.pins import found

if TYPE_CHECKING:
    from collections.abc import Callable


def export(
    snapshot: str, destination: str, /, *, output: Output = OUTPUT, common: Common = COMMON
) -> int:
    """Carry a snapshot to another folder or bucket: the same id, every byte checked.

    Run it again to go on where it was stopped. Labels stay here.

    Try: ``lake snapshot export paper s3://backup/paper``

    Args:
        snapshot: An id, the beginning of one, or a label.
        destination: A new place, an earlier export, or a copy of the same lake.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.export import export_snapshot
    from lake.store import Store

    store, manifest = found(common, snapshot)
    target = Store(destination)
    done = export_snapshot(store, manifest, target, SystemClock(), on_progress=_told("export"))
    emit_record({**asdict(done), "destination": target.uri}, output)
    return 0


def import_(
    source: str,
    snapshot: str | None = None,
    /,
    *,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Bring snapshots in from an export or another lake of the same origin.

    Run it again to go on where it was stopped. Where --root names no lake yet, an export is
    made there.

    Try: ``lake snapshot import s3://backup/paper 2026-03-24-3f9ac2d1``

    Args:
        source: A folder or s3://bucket/prefix; it is only read.
        snapshot: As it is named there; all pinned snapshots of it when left out.
    """
    import polars as pl

    from contracts.time import SystemClock
    from flows.cli.output import emit
    from lake.export import import_snapshots
    from lake.pinlog import pin_state
    from lake.store import Store

    store = Store(common.root)
    done = import_snapshots(
        Store(source), store, SystemClock(), snapshot=snapshot, on_progress=_told("import")
    )
    rows = [{**asdict(each), "pin": pin_state(store, each.snapshot_id).value} for each in done]
    emit(pl.DataFrame(rows), output)
    return 0


def _told(doing: str) -> "Callable[[int, int], None]":
    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty() and (done == total or done % 20 == 0):
            sys.stderr.write(f"\r{doing}: {done}/{total} files" + ("\n" if done == total else ""))

    return tell
