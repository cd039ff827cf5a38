"""Is a snapshot still what it was? Every file is looked at, and every fault is named."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import ChecksumError, SnapshotIncompleteError, StorageError
from lake.pinlog import explained
from lake.rowhash import combine, frame_hash
from lake.scan import read_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contracts.spec import TableSpec
    from lake.manifest import Manifest
    from lake.parts import FileEntry
    from lake.store import Store

_REMEDY = "Restore the file from a copy of the lake; nothing else can be read in its place"
_THREADS = 4  # Each holds a file when it hashes.
_LOOKS = 16


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification looked at; it found no fault."""

    snapshot_id: str
    level: str
    files: int
    size_bytes: int


def check_file(store: Store, path: str, entry: FileEntry, *, hashed: bool) -> None:
    """Check that one file exists with its size, and on demand that its bytes are its own.

    Raises:
        SnapshotIncompleteError: The file is missing.
        ChecksumError: Its size or its SHA-256 is wrong.
    """
    size = store.size(path)
    if size is None:
        raise SnapshotIncompleteError(f"{store.uri_of(path)} is missing", remedy=_REMEDY, path=path)
    if size != entry.size:
        raise ChecksumError(
            f"{store.uri_of(path)} has {size} bytes, not {entry.size}", remedy=_REMEDY, path=path
        )
    if hashed and hashlib.sha256(store.get(path) or b"").hexdigest() != entry.sha256:
        raise ChecksumError(
            f"{store.uri_of(path)} has changed: its SHA-256 is not the one it was written with",
            remedy=_REMEDY,
            path=path,
        )


def check_files(store: Store, spec: TableSpec, files: Sequence[FileEntry], *, hashed: bool) -> None:
    """Check several files of a table; those of a bucket are asked for at once.

    Raises:
        SnapshotIncompleteError: A file is missing.
        ChecksumError: The size or the SHA-256 of a file is wrong.
    """

    def check(entry: FileEntry) -> None:
        check_file(store, f"{spec.path}/{entry.path}", entry, hashed=hashed)

    if store.is_local or len(files) < 2:
        for entry in files:
            check(entry)
        return
    with ThreadPoolExecutor(_THREADS if hashed else _LOOKS) as pool:
        for _ in pool.map(check, files):
            pass


def verify(
    store: Store,
    manifest: Manifest,
    *,
    level: str = "full",
    on_progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Check every file of a snapshot.

    Args:
        store: Where the files are.
        manifest: The snapshot.
        level: ``quick`` checks existence and size, ``full`` hashes every file, ``deep``
            also recomputes each table's logical hash from its rows.
        on_progress: Called with files done and files in all.

    Raises:
        SnapshotIncompleteError: A file is missing; ``faults`` lists all faults.
        ChecksumError: A file or a table is not what was pinned; ``faults`` lists all.
    """
    work = [
        (f"{view.spec.path}/{entry.path}", entry)
        for name in manifest.tables
        for view in (manifest.view(name),)
        for entry in view.files
    ]
    faults: list[StorageError] = []

    def look(item: tuple[str, FileEntry]) -> StorageError | None:
        try:
            check_file(store, item[0], item[1], hashed=level != "quick")
        except StorageError as fault:
            return fault
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        for done, fault in enumerate(pool.map(look, work), start=1):
            faults += [fault] if fault is not None else []
            if on_progress is not None:
                on_progress(done, len(work))
    if level == "deep" and not faults:
        faults += _deep(store, manifest)
    if faults:
        raise explained(store, manifest.snapshot_id, _summed_up(manifest.snapshot_id, faults))
    size = sum(entry.size for _, entry in work)
    return Verified(manifest.snapshot_id, level, len(work), size)


def _deep(store: Store, manifest: Manifest) -> list[StorageError]:
    faults: list[StorageError] = []
    for name, pinned in manifest.tables.items():
        view = manifest.view(name)
        bulky = view.spec.bulky_columns
        found = combine(
            frame_hash(read_files(store, view.spec, [entry]), bulky=bulky) for entry in view.files
        )
        if found != pinned["logical_hash"]:
            faults.append(
                ChecksumError(
                    f"The rows of {name} do not hash to what was pinned",
                    remedy=_REMEDY,
                    path=view.spec.path,
                )
            )
    return faults


def _summed_up(snapshot_id: str, faults: list[StorageError]) -> StorageError:
    first = faults[0]
    more = f" and {len(faults) - 1} more faults" if len(faults) > 1 else ""
    return type(first)(
        f"Snapshot {snapshot_id} does not hold: {first.message}{more}",
        remedy=first.remedy,
        snapshot_id=snapshot_id,
        path=first.context.get("path"),
        faults=[fault.message for fault in faults],
    )
