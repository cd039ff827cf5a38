"""``lake snapshot pin | unpin``: give a snapshot up in two steps, or keep it after all.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

from typing import Any

from contracts.errors import RequestError
from flows.cli.options import COMMON, OUTPUT, Common, Output
from flows.cli.pins import found
from flows.cli.say import say


def unpin(
    snapshot: str,
    /,
    *,
    reason: str | None = None,
    confirm: str | None = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Give a snapshot up, in two steps; who did it, when and why is kept for ever.

    With ``--reason``, says what would become deletable and prints a token; nothing changes
    yet. With ``--confirm TOKEN``, lets `lake maintain` delete what only this snapshot keeps.

    Try: ``lake snapshot unpin 2026-03-24-3f9ac2d1 --reason "the paper was withdrawn"``

    Args:
        snapshot: An id, the beginning of one, or a label.
        reason: Why it is given up: the first step.
        confirm: The token of the first step: the second step.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.labels import labels_by_snapshot
    from lake.pins import confirm_unpin, request_unpin
    from lake.sources import Tables

    if (reason is None) == (confirm is None):
        raise RequestError(
            "An unpin takes a reason, and then the token that this gives",
            remedy='Begin with --reason "...", end with --confirm TOKEN',
        )
    store, manifest = found(common, snapshot)
    tables, name = Tables(store, SystemClock()), manifest.snapshot_id
    record: dict[str, Any] = {"snapshot_id": name}
    if reason is not None:
        asked = request_unpin(tables, manifest, why=reason)
        record |= {
            "pin": "unpin_requested",
            "labels": labels_by_snapshot(store).get(name, []),
            "deletable_files": asked.reach.files,
            "deletable_bytes": asked.reach.size_bytes,
            "token": asked.token,
        }
        emit_record(record, output)
        say(f"it stays pinned until: lake snapshot unpin {name} --confirm {asked.token}")
        return 0
    done = confirm_unpin(tables, manifest, token=confirm or "")
    emit_record({**record, "pin": done.event.value, "by": done.by, "why": done.why}, output)
    return 0


def pin(
    snapshot: str,
    /,
    *,
    reason: str = "pinned again",
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Keep a snapshot that was given up, if all its files are still there.

    Try: ``lake snapshot pin 2026-03-24-3f9ac2d1 --reason "a referee asks"``

    Args:
        snapshot: An id, the beginning of one, or a label.
        reason: Why it is kept.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.pins import pin as keep
    from lake.sources import Tables

    store, manifest = found(common, snapshot)
    before = keep(Tables(store, SystemClock()), manifest, why=reason)
    record = {"snapshot_id": manifest.snapshot_id, "pin": "pinned", "before": before.value}
    emit_record(record, output)
    return 0
