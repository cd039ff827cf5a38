"""Carry a snapshot to another folder or bucket: the same id, every byte checked on the way.

An export is a place with a ``lake.json`` that says it holds snapshots only: no Delta log, so
no newest state, and nobody writes data there. It keeps the folders of a lake, so whoever opens
it with the id reads what the lake read.

Files go first and the manifest last, so a snapshot is there whole or not at all; where a vacuum
was under way meanwhile, it is given up again and the command says so. What a run
that was killed had copied is found by size and SHA-256 and not copied again. A lease is held
all the while: a vacuum of the receiving lake waits for it.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import (
    ChecksumError,
    LakeOriginError,
    RequestError,
    SnapshotIncompleteError,
    StoreUnavailableError,
)
from lake.labels import resolve_snapshot
from lake.leases import GRACE, lease
from lake.manifest import (
    content_hash,
    find_manifest,
    load_manifest,
    manifest_path,
    read_manifest,
)
from lake.pinlog import PinState, add_event, explained, is_pinned, pinned_ids
from lake.pins import make_sure
from lake.root import init_export, read_lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from contracts.time import Clock
    from lake.leases import Holding
    from lake.manifest import Manifest
    from lake.parts import FileEntry
    from lake.root import LakeInfo
    from lake.store import Store

    Told = Callable[[int, int], None]

_THREADS = 4
_REMEDY = "Restore the file there from a copy; nothing of the snapshot is visible here"


@dataclass(frozen=True, slots=True)
class Carried:
    """What was carried to another place.

    Attributes:
        snapshot_id: The snapshot, here and there.
        files: Its data files.
        size_bytes: Their size.
        copied: Files that were copied; the others were there already, byte for byte.
        copied_bytes: Their size.
    """

    snapshot_id: str
    files: int
    size_bytes: int
    copied: int
    copied_bytes: int


def export_snapshot(
    store: Store,
    manifest: Manifest,
    destination: Store,
    clock: Clock,
    *,
    on_progress: Told | None = None,
) -> Carried:
    """Carry a snapshot out: to a new place, an earlier export, or a copy of the same lake.

    Args:
        store: The lake.
        manifest: Its snapshot.
        destination: Where to.
        clock: Its storage time dates the lease.
        on_progress: Called with files done and files in all.

    Raises:
        RequestError: The destination is the lake itself, or a folder with other things.
        LakeOriginError: It holds data of another origin, or is another lake.
        SnapshotIncompleteError: A file is missing here.
        ChecksumError: A file here is not what was pinned.
        StoreUnavailableError: The destination is full, for instance; run it again to go on.
    """
    info = read_lake(store)
    if destination.get("lake.json") is not None:
        there = read_lake(destination)
        if there.holds is None and there.lake_id != info.lake_id:
            raise LakeOriginError(
                f"{destination.uri} is another lake",
                remedy="Export to a new place; that lake's owner imports from there",
                lake_id=there.lake_id,
            )
    return _carry(store, manifest, destination, clock, info=info, on_progress=on_progress)


def import_snapshots(
    source: Store,
    store: Store,
    clock: Clock,
    *,
    snapshot: str | None = None,
    on_progress: Told | None = None,
) -> list[Carried]:
    """Bring snapshots in from an export or another lake of the same origin.

    Args:
        source: Where they are; it is only read.
        store: The lake that receives them. Where there is none, an export is made.
        clock: Its storage time dates the lease.
        snapshot: An id, the beginning of one, or a label, as the source has it; all pinned
            snapshots of the source when None.
        on_progress: Called with files done and files in all, snapshot by snapshot.

    Raises:
        RequestError: The source is the lake itself, or it has no snapshots.
        LakeOriginError: The two hold data of different origins.
        UnknownSnapshotError: The source has no such snapshot.
        SnapshotIncompleteError: A file is missing there.
        ChecksumError: A file or a manifest there is not what was pinned.
        StoreUnavailableError: The lake's store is full, for instance; run it again to go on.
    """
    info = read_lake(source)
    if snapshot is None:
        chosen = [load_manifest(source, name) for name in pinned_ids(source)]
    else:
        chosen = [resolve_snapshot(source, snapshot)]
    if not chosen:
        raise RequestError(
            f"{source.uri} has no snapshots", remedy="Make one there with `lake snapshot create`"
        )
    return [
        _carry(source, manifest, store, clock, info=info, on_progress=on_progress)
        for manifest in chosen
    ]


def _carry(
    source: Store,
    manifest: Manifest,
    target: Store,
    clock: Clock,
    *,
    info: LakeInfo,
    on_progress: Told | None,
) -> Carried:
    _prepare(source, target, info)
    work = [
        (f"{view.spec.path}/{entry.path}", entry)
        for name in manifest.tables
        for view in (manifest.view(name),)
        for entry in view.files
    ]
    with _LongLease(target, clock) as renew:
        copied = _copy_all(source, target, manifest, work, renew=renew, on_progress=on_progress)
        renew()
        made = _put_manifest(source, target, manifest.snapshot_id)
        given_up = not is_pinned(target, manifest.snapshot_id)
        if given_up:
            add_event(
                target, clock, manifest.snapshot_id, PinState.PINNED, why="carried here again"
            )
        make_sure(target, clock, manifest, undo=made or given_up)
    return Carried(
        manifest.snapshot_id,
        len(work),
        sum(entry.size for _, entry in work),
        len(copied),
        sum(copied),
    )


def _prepare(source: Store, target: Store, info: LakeInfo) -> None:
    """Make sure that the target may receive; say in lake.json what it is if it is new."""
    if source.uri == target.uri:
        raise RequestError(f"{source.uri} is where the snapshot is", remedy="Name another place")
    if target.get("lake.json") is None:
        # Looked at again: another export may have begun there since.
        held = target.is_local and _holds_anything(target)
        if held and target.get("lake.json") is None:
            raise RequestError(
                f"{target.uri} holds other things, and no lake",
                remedy="Name a new or an empty folder",
            )
        init_export(target, info)
    there = read_lake(target)
    if there.origin != info.origin:
        raise LakeOriginError(
            f"{target.uri} holds data of origin {there.origin}, and the snapshot is of "
            f"{info.origin}",
            remedy="Name another place: recorded, generated and live data never mix",
            origin=there.origin,
            asked=info.origin,
        )


def _holds_anything(target: Store) -> bool:
    """Tell whether a folder holds more than a run may have staged that died at its first step."""
    if not target.path.is_dir():
        return False
    return any(not each.name.startswith("lake.json#") for each in target.path.iterdir())


def _copy_all(
    source: Store,
    target: Store,
    manifest: Manifest,
    work: list[tuple[str, FileEntry]],
    *,
    renew: _LongLease,
    on_progress: Told | None,
) -> list[int]:
    """Copy what is not there; return the sizes of what was copied."""
    there: dict[str, int] = {}
    for name in manifest.tables:
        there |= target.sizes(manifest.view(name).spec.path)

    def copy(item: tuple[str, FileEntry]) -> int | None:
        path, entry = item
        if there.get(path) == entry.size and _sha256(target.get(path)) == entry.sha256:
            return None
        data = source.get(path)
        _check(source, manifest.snapshot_id, path, entry, data)
        target.put(path, data or b"")
        return entry.size

    copied: list[int] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for done, size in enumerate(pool.map(copy, work), start=1):
                copied += [] if size is None else [size]
                renew()
                if on_progress is not None:
                    on_progress(done, len(work))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return copied


def _check(
    source: Store, snapshot_id: str, path: str, entry: FileEntry, data: bytes | None
) -> None:
    if data is None:
        fault = SnapshotIncompleteError(
            f"{source.uri_of(path)} is missing", remedy=_REMEDY, path=path
        )
        raise explained(source, snapshot_id, fault)
    if _sha256(data) != entry.sha256:
        raise ChecksumError(
            f"{source.uri_of(path)} has changed: its SHA-256 is not the one it was written with",
            remedy=_REMEDY,
            path=path,
        )


def _sha256(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()


def _put_manifest(source: Store, target: Store, snapshot_id: str) -> bool:
    """Put the manifest as it is, byte by byte; one that stands must say the same.

    Tells whether it was put.
    """
    path = manifest_path(snapshot_id)
    content = source.get(path)
    if content is None:
        raise SnapshotIncompleteError(f"{source.uri_of(path)} vanished", remedy=_REMEDY, path=path)
    manifest = read_manifest(source, snapshot_id, content)
    if target.create(path, content):
        return True
    standing = find_manifest(target, snapshot_id)
    if standing is None:
        raise StoreUnavailableError(
            f"{target.uri_of(path)} is there and is not there", remedy="Run it again", path=path
        )
    if content_hash(standing.content) != content_hash(manifest.content):
        raise ChecksumError(
            f"{target.uri} has another snapshot of the id {snapshot_id}",
            remedy="Carry this one to a place of its own",
            path=path,
        )
    return False


class _LongLease:
    """A lease that is taken anew before it grows old; call it now and then."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._stack = ExitStack()
        self._check: Holding | None = None

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(self) -> None:
        """Take a new lease before the old one is half as old as it may get.

        Raises:
            SnapshotIncompleteError: The old one is too old: a vacuum may not have waited.
        """
        if self._check is not None:
            self._check()
        if self._clock.storage() - self._began > GRACE / 8:
            self._take()

    def _take(self) -> None:
        old, self._stack = self._stack, ExitStack()
        self._began = self._clock.storage()
        self._check = self._stack.enter_context(lease(self._store, self._clock, "import", GRACE))
        old.close()
