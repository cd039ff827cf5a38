"""``lake snapshot``: pin, list, show, verify.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import sys
from typing import TYPE_CHECKING, Any

from contracts.errors import RequestError
from flows.cli.options import COMMON, OUTPUT, Common, Output
from flows.cli.say import complain, say

if TYPE_CHECKING:
    from contracts.errors import StorageError
    from lake.manifest import Manifest


def create(*, label: str | None = None, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """Pin the state of all tables to one snapshot_id; the same state gives the same id.

    Try: ``lake snapshot create --label "before the paper" --format json``

    Args:
        label: A note that stands beside the snapshot.
    """
    from contracts.time import SystemClock
    from flows.cli.output import emit_record
    from lake.root import read_lake
    from lake.snapshots import create_snapshot
    from lake.sources import Tables
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    manifest = create_snapshot(Tables(store, SystemClock()), label=label)
    emit_record(_summary(manifest), output)
    return 0


def list_snapshots(*, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """List the snapshots of the lake, oldest first.

    Try: ``lake snapshot list``
    """
    import lake
    from flows.cli.output import emit

    emit(lake.open(common.root).snapshots(), output)
    return 0


def show(snapshot_id: str, /, *, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """Print what a snapshot pins: tables with versions, rows and hashes, ledger, audits.

    Try: ``lake snapshot show 2026-03-24-3f9ac2d1``

    Args:
        snapshot_id: Which snapshot.
    """
    from flows.cli.output import emit_record

    manifest = _manifest(common, snapshot_id)
    record: dict[str, Any] = _summary(manifest)
    for name, pinned in manifest.tables.items():
        keep = ("version", "rows", "key_range", "logical_hash")
        told = {key: pinned[key] for key in keep}
        record[name] = {**told, "files": len(pinned["files"])}
    record |= {key: manifest.content[key] for key in ("ledger", "audits", "quarantine", "code")}
    emit_record(record, output)
    return 0


def verify(
    snapshot_id: str | None = None,
    /,
    *,
    quick: bool = False,
    deep: bool = False,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Check that every file of a snapshot, or of all of them, is what was pinned.

    Try: ``lake snapshot verify --quick``

    Args:
        snapshot_id: Which snapshot; all when left out.
        quick: Check existence and size only, hash nothing.
        deep: Hash every file, and hash the rows of each table as well.
    """
    from flows.cli.output import emit_record

    if quick and deep:
        raise RequestError("--quick and --deep exclude one another", remedy="Choose one of them")
    level = "quick" if quick else "deep" if deep else "full"
    if snapshot_id is not None:
        row, fault = _checked(common, snapshot_id, level)
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
    from lake.manifest import snapshot_ids
    from lake.root import read_lake
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    found = [_checked(common, each, level) for each in snapshot_ids(store)]
    if not found:
        raise RequestError(
            f"The lake at {store.uri} has no snapshots",
            remedy="Make one with `lake snapshot create`",
        )
    emit(pl.DataFrame([row for row, _ in found], infer_schema_length=None), output)
    return [fault for _, fault in found if fault is not None]


def _checked(
    common: Common, snapshot_id: str, level: str
) -> "tuple[dict[str, Any], StorageError | None]":
    from contracts.errors import StorageError
    from lake.store import Store
    from lake.verify import verify as check

    row: dict[str, Any] = {"snapshot_id": snapshot_id, "level": level}
    try:
        manifest = _manifest(common, snapshot_id)
        held = check(Store(common.root), manifest, level=level, on_progress=_tell)
    except StorageError as fault:
        row |= {"files": None, "size_bytes": None, "verdict": fault.code}
        return row, fault
    row |= {"files": held.files, "size_bytes": held.size_bytes, "verdict": "holds"}
    return row, None


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done == total or done % 50 == 0):
        sys.stderr.write(f"\rverify: {done}/{total} files" + ("\n" if done == total else ""))


def _manifest(common: Common, snapshot_id: str) -> "Manifest":
    from lake.manifest import load_manifest
    from lake.root import read_lake
    from lake.store import Store

    store = Store(common.root)
    read_lake(store)
    return load_manifest(store, snapshot_id)


def _summary(manifest: "Manifest") -> dict[str, Any]:
    files = [told for pinned in manifest.tables.values() for told in pinned["files"]]
    return {
        "snapshot_id": manifest.snapshot_id,
        "created_at": manifest.beside["created_at"],
        "label": manifest.beside.get("label"),
        "origin": manifest.beside.get("origin"),
        "tables": len(manifest.tables),
        "files": len(files),
        "rows": sum(told["rows"] for told in files),
        "size_bytes": sum(told["size"] for told in files),
    }
