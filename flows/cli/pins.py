"""``lake snapshot``: create, list, show, label, verify.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from contracts.errors import RequestError
from contracts.time import iso
from flows.cli.options import COMMON, OUTPUT, Common, Many, Output
from flows.cli.say import complain, say

if TYPE_CHECKING:
    from contracts.errors import StorageError
    from lake.manifest import Manifest
    from lake.store import Store


def create(
    *,
    label: str | None = None,
    tables: Annotated[list[str] | None, Many] = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Pin the state of all tables to one snapshot_id; the same state gives the same id.

    Try: ``lake snapshot create --label paper --format json``

    Args:
        label: A label that moves to the snapshot, such as paper: it can be read by that name.
        tables: Pin only these tables, such as silver.bars,ops.ledger.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.root import read_lake
    from lake.snapshots import create_snapshot
    from lake.sources import Tables
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    manifest = create_snapshot(
        Tables(store, SystemClock()), label=label, members=table_names(tables)
    )
    emit_record(summary(store, manifest), output)
    return 0


def table_names(told: list[str] | None) -> list[str] | None:
    """Return the tables that an option names, be they apart or joined by commas."""
    if told is None:
        return None
    return [name.strip() for each in told for name in each.split(",") if name.strip()]


def list_snapshots(*, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """List the snapshots of the lake, oldest first.

    Try: ``lake snapshot list``
    """
    import lake
    from flows.cli.output import emit

    emit(lake.open(common.root).snapshots(), output)
    return 0


def label(name: str, snapshot: str, /, *, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """Let a label stand for a snapshot; the label moves, the snapshot stays.

    Try: ``lake snapshot label paper 2026-03-24-3f9ac2d1``

    Args:
        name: The label: up to 64 of a-z 0-9 . _ - and no id.
        snapshot: An id, the beginning of one, or another label.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.labels import set_label

    store, manifest = found(common, snapshot)
    set_to = set_label(store, SystemClock(), name, manifest.snapshot_id)
    emit_record(asdict(set_to), output)
    return 0


def show(snapshot: str, /, *, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """Print what a snapshot pins, its labels, and all that was done to its pin.

    Tables come with version, rows and hash; then the ledger, audits and quarantine in sums.

    Try: ``lake snapshot show 2026-03-24-3f9ac2d1``

    Args:
        snapshot: An id, the beginning of one, or a label.
    """
    from flows.cli.output import emit_record
    from lake.locks import holders
    from lake.pinlog import pin_events
    from lake.quality_summary import quality_summary

    store, manifest = found(common, snapshot)
    record: dict[str, Any] = summary(store, manifest)
    record["members"] = manifest.content.get("members", "all")
    record["pin_events"] = [
        {"event": each.event, "by": each.by, "at": iso(each.at), "why": each.why}
        for each in pin_events(store, manifest.snapshot_id)
    ]
    record["locks"] = [str(lock) for lock in holders(store, manifest.snapshot_id)]
    for name, pinned in manifest.tables.items():
        keep = ("version", "rows", "key_range", "logical_hash")
        told = {key: pinned[key] for key in keep}
        record[name] = {**told, "files": len(pinned["files"])}
    record |= quality_summary(store, manifest)
    record["code"] = manifest.content["code"]
    emit_record(record, output)
    return 0


def verify(
    snapshot: str | None = None,
    /,
    *,
    quick: bool = False,
    deep: bool = False,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Check that every file of a snapshot, or of all that are pinned, is what was pinned.

    Try: ``lake snapshot verify --quick``

    Args:
        snapshot: An id, the beginning of one, or a label; all that are pinned when left out.
        quick: Check existence and size only, hash nothing.
        deep: Hash every file, and hash the rows of each table as well.
    """
    from flows.cli.output import emit_record

    if quick and deep:
        raise RequestError("--quick and --deep exclude one another", remedy="Choose one of them")
    level = "quick" if quick else "deep" if deep else "full"
    if snapshot is not None:
        row, fault = _checked(common, snapshot, level)
        emit_record(row, output)
        faults = [] if fault is None else [fault]
    else:
        faults = _verify_all(common, level, output)
    for each in faults:
        for line in each.context.get("faults", ())[1:]:
            say(f"fault: {line}")
        complain(each)
    return max((each.exit_code for each in faults), default=0)


def _verify_all(common: Common, level: str, output: Output) -> "list[StorageError]":
    import polars as pl

    from flows.cli.output import emit
    from lake.pinlog import pin_states
    from lake.root import read_lake
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    rows, faults = [], []
    for name, state in pin_states(store).items():
        row, fault = _checked(common, name, level) if state.keeps else (_given_up(name), None)
        rows.append(row)
        faults += [] if fault is None else [fault]
    if not rows:
        raise RequestError(
            f"The lake at {store.uri} has no snapshots",
            remedy="Make one with `lake snapshot create`",
        )
    emit(pl.DataFrame(rows, infer_schema_length=None), output)
    return faults


def _given_up(snapshot_id: str) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot_id,
        "level": "none",
        "files": None,
        "size_bytes": None,
        "verdict": "unpinned",
    }


def _checked(
    common: Common, snapshot: str, level: str
) -> "tuple[dict[str, Any], StorageError | None]":
    from contracts.errors import StorageError
    from lake.verify import verify as check

    row: dict[str, Any] = {"snapshot_id": snapshot, "level": level}
    try:
        store, manifest = found(common, snapshot)
        row["snapshot_id"] = manifest.snapshot_id
        held = check(store, manifest, level=level, on_progress=_tell)
    except StorageError as fault:
        row |= {"files": None, "size_bytes": None, "verdict": fault.code}
        return row, fault
    row |= {"files": held.files, "size_bytes": held.size_bytes, "verdict": "holds"}
    return row, None


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done == total or done % 50 == 0):
        sys.stderr.write(f"\rverify: {done}/{total} files" + ("\n" if done == total else ""))


def found(common: Common, snapshot: str) -> "tuple[Store, Manifest]":
    """Return the store and the snapshot that a text names in it."""
    from lake.labels import resolve_snapshot
    from lake.root import read_lake
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    return store, resolve_snapshot(store, snapshot)


def summary(store: "Store", manifest: "Manifest") -> dict[str, Any]:
    """Return what a snapshot is, in a few words."""
    from lake.labels import labels_by_snapshot
    from lake.pinlog import pin_state

    files = [told for pinned in manifest.tables.values() for told in pinned["files"]]
    return {
        "snapshot_id": manifest.snapshot_id,
        "created_at": manifest.beside["created_at"],
        "created_by": manifest.beside["created_by"],
        "pin": pin_state(store, manifest.snapshot_id).value,
        "labels": labels_by_snapshot(store).get(manifest.snapshot_id, []),
        "note": manifest.beside.get("label"),
        "origin": manifest.beside.get("origin"),
        "tables": len(manifest.tables),
        "files": len(files),
        "rows": sum(told["rows"] for told in files),
        "size_bytes": sum(told["size"] for told in files),
    }
