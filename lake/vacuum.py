"""The one place that deletes data files: what no head and no pin names, and leftovers.

A data file is deleted when all of this holds:

- the head of its table does not name it, nor does any pinned snapshot;
- it was written, and removed from the head, longer ago than the grace, by the store's clock;
- nobody holds a lease: a snapshot, an import or a pin in the making would hold one.

Deletion goes in batches. Each batch takes a lease of its own, reads leases, pins and heads
again, writes a row to ``ops.deletions`` for each object, and only then deletes. So a crash
leaves rows for objects that still stand, never an object that went without its row; the next
run deletes it under a row of its own.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import CommitConflictError, StorageError
from contracts.tables import DELETIONS, RESPONSES, TABLES
from lake.appends import append_missing
from lake.leases import GRACE, MAINTAIN, every_lease, find_lease, lease
from lake.logs import log_of, removed_since
from lake.parts import read_footer
from lake.probe import FOLDER as PROBES
from lake.reach import PinnedFiles, check_heads, head_files
from lake.snapshots import code_version
from lake.store import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime, timedelta

    from contracts.spec import TableSpec
    from lake.leases import Holding, Lease
    from lake.sources import Tables
    from lake.store import Store

UNREACHABLE, RETENTION, LEFTOVER, LEASE = "unreachable", "retention", "leftover", "lease"
_DATA_FILE = re.compile(r"(?:[\w.=-]+/)*part-[0-9a-f]{64}(?:-[0-9a-f]{32})?\.parquet")
_STAGED = re.compile(r".*\.(?:parquet|json|tmp)(?:#[0-9a-f]+)+|.*/_delta_log/[^/]*\.tmp")
_BATCH = 500
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """What a vacuum may delete.

    Attributes:
        grace: Minimal age of a file, and minimal time since it was removed from the head.
        lease_grace: Age from which on a lease is dead.
        data: Whether to look at data files.
        leftovers: Whether to look at what crashes left: staged files and dead leases.
        first_kept: Answers of days before this one expired by policy, YYYY-MM-DD.
    """

    grace: timedelta
    lease_grace: timedelta = GRACE
    data: bool = True
    leftovers: bool = True
    first_kept: str | None = None


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that may go.

    Attributes:
        path: Below the lake's root.
        size: Bytes.
        modified: When it was written, by the store's clock.
        free_since: Since when no head names it, as far as the log of the grace tells.
        table_name: Whose folder it lies in; empty where in none.
        reason: ``unreachable``, ``retention``, ``leftover`` or ``lease``.
        detail: What speaks for it.
    """

    path: str
    size: int
    modified: datetime
    free_since: datetime
    table_name: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a vacuum found, or did.

    Attributes:
        doomed: What may go, or what went.
        pinned: Files that nothing but a pin keeps, and their bytes.
        young: Unreachable files within the grace, and their bytes.
        held_up: The leases because of which nothing was deleted, or not all.
    """

    doomed: tuple[Doomed, ...] = ()
    pinned: tuple[int, int] = (0, 0)
    young: tuple[int, int] = (0, 0)
    held_up: tuple[Lease, ...] = ()


def survey(
    tables: Tables, rules: Rules, *, now: datetime, pins: PinnedFiles | None = None
) -> Survey:
    """Return what may be deleted at ``now``; nothing is written.

    Args:
        tables: The lake's tables.
        rules: What may go.
        now: By the store's clock.
        pins: Knows manifests already; a new one when None.

    Raises:
        StorageError: A log or a manifest cannot be read, so nobody can tell what is needed.
    """
    loose: list[Doomed] = []
    pins = pins or PinnedFiles(tables.store)
    if rules.data:
        check_heads(tables, pins)
        for spec in TABLES.values():
            loose += _loose_files(tables, spec, rules, now)
    if rules.leftovers:
        loose += _leftovers(tables.store)
    # Leases and pins are read last: who pinned since the heads were read is seen here.
    leases = every_lease(tables.store)
    if rules.leftovers:
        loose += [_dead(each) for each in leases if not each.is_live(now, rules.lease_grace)]
    live = tuple(each for each in leases if each.is_live(now, rules.lease_grace))
    pinned = pins.paths()
    kept = [each for each in loose if each.path in pinned]
    free = [each for each in loose if each.path not in pinned]
    old = [each for each in free if each.reason == LEASE or now - each.free_since >= rules.grace]
    aged = {each.path for each in old}
    return Survey(
        tuple(sorted(old, key=lambda each: each.path)),
        _sum(kept),
        _sum([each for each in free if each.path not in aged]),
        live,
    )


def sweep(
    tables: Tables,
    rules: Rules,
    *,
    run_id: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Delete what may be deleted; return what went.

    Args:
        tables: The lake's tables.
        rules: What may go.
        run_id: The run, for ops.deletions.
        on_progress: Called with objects done and objects in all.

    Raises:
        StorageError: A log or a manifest cannot be read; what was deleted has its rows.
    """
    pins = PinnedFiles(tables.store)
    with _own_lease(tables) as own:
        found = survey(tables, rules, now=own.stored_at, pins=pins)
    gone: list[Doomed] = []
    rivals: tuple[Lease, ...] = ()
    for first in range(0, len(found.doomed), _BATCH):
        batch = found.doomed[first : first + _BATCH]
        with _own_lease(tables) as own:
            rivals = tuple(
                each
                for each in every_lease(tables.store)
                if each.path != own.path and each.is_live(own.stored_at, rules.lease_grace)
            )
            if rivals:
                break
            gone += _delete(tables, _still_loose(tables, pins, batch), own, run_id)
        if on_progress is not None:
            on_progress(first + len(batch), len(found.doomed))
    return replace(found, doomed=tuple(gone), held_up=rivals)


def put_back(tables: Tables) -> list[str]:
    """Put needed files back that a deletion had moved aside when it died; return their paths.

    In a folder a file is moved aside before it is looked at for the last time. Where it was
    written anew at that moment and the process died before it was moved back, it lies there.
    """
    store = tables.store
    aside = {path: path.partition("#")[0] for path in store.leftovers()}
    wanted = {path: base for path, base in aside.items() if _is_data(base)}
    if not wanted:
        return []
    needed = head_files(tables).keys() | PinnedFiles(store).paths()
    return [
        base
        for path, base in sorted(wanted.items())
        if base in needed and store.size(base) is None and _put_back(store, path, base)
    ]


def _loose_files(tables: Tables, spec: TableSpec, rules: Rules, now: datetime) -> list[Doomed]:
    """Return the data files of a table that its head does not name.

    The folder is listed before the head is read: a file that is listed and committed in
    between is in the head.
    """
    store = tables.store
    listing = store.listing(spec.path)
    log = log_of(spec, listing)
    if log.newest < 0:
        return []  # Nothing yet, an import, or a log that was lost: then nobody can tell.
    removed = removed_since(store, spec, log, now - rules.grace)
    named = {f"{spec.path}/{entry.path}" for entry in tables[spec.name].head().files}
    found = []
    for path, listed in listing.items():
        below = path.removeprefix(f"{spec.path}/")
        if path in named or not _DATA_FILE.fullmatch(below):
            continue
        free_since = max(listed.modified, removed.get(below, listed.modified))
        reason, detail = _why(spec, below, rules.first_kept)
        found.append(
            Doomed(path, listed.size, listed.modified, free_since, spec.name, reason, detail)
        )
    return found


def _why(spec: TableSpec, below: str, first_kept: str | None) -> tuple[str, str]:
    if spec.name == RESPONSES.name and first_kept is not None:
        day = re.search(r"date=([\d-]+)/", below)
        if day is not None and day[1] < first_kept:
            return RETENTION, f"answers of days before {first_kept} have expired"
    return UNREACHABLE, "no head and no pinned snapshot names it"


def _leftovers(store: Store) -> list[Doomed]:
    """Return what was staged and not finished, in a log too, and probes of the store."""
    found = dict(store.leftovers())
    for spec in TABLES.values():
        found |= store.listing(f"{spec.path}/_delta_log")
    staged = {path: listed for path, listed in found.items() if _STAGED.fullmatch(path)}
    return [
        Doomed(path, listed.size, listed.modified, listed.modified, _table_of(path), LEFTOVER,
               "of a write or a probe that did not end")
        for path, listed in (staged | store.listing(PROBES)).items()
    ]  # fmt: skip


def _dead(each: Lease) -> Doomed:
    detail = f"its holder ({each.kind}) has not come back"
    return Doomed(each.path, 0, each.stored_at, each.stored_at, "", LEASE, detail)


def _table_of(path: str) -> str:
    return next((spec.name for spec in TABLES.values() if path.startswith(f"{spec.path}/")), "")


def _is_data(path: str) -> bool:
    table = _table_of(path)
    return bool(table) and _DATA_FILE.fullmatch(path) is not None


def _sum(files: Sequence[Doomed]) -> tuple[int, int]:
    return len(files), sum(each.size for each in files)


@dataclass(frozen=True, slots=True)
class _Own:
    """The lease under which something is deleted, and when the store says it was put."""

    check: Holding
    stored_at: datetime

    @property
    def path(self) -> str:
        return self.check.path


@contextmanager
def _own_lease(tables: Tables) -> Iterator[_Own]:
    with lease(tables.store, tables.clock, MAINTAIN) as check:
        stood = find_lease(tables.store, check.path)
        if stood is None:
            raise CommitConflictError(
                f"The lease {check.path} vanished while it was held",
                remedy="Run again when nobody else deletes leases of this lake",
                path=check.path,
            )
        yield _Own(check, stood.stored_at)


def _still_loose(tables: Tables, pins: PinnedFiles, batch: Sequence[Doomed]) -> list[Doomed]:
    """Return those of a batch that no head and no pin names at this moment."""
    needed = head_files(tables).keys() | pins.paths()
    return [each for each in batch if each.path not in needed]


def _delete(tables: Tables, batch: Sequence[Doomed], own: _Own, run_id: str) -> list[Doomed]:
    """Note and delete; return what went. What was written anew in the meantime stays."""
    if not batch:
        return []
    store = tables.store
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = list(pool.map(lambda each: _rows(store, each), batch))
        append_missing(
            tables[DELETIONS.name], _audit_rows(tables, batch, rows, run_id), app="deletions"
        )
        own.check()
        went = list(
            pool.map(lambda each: store.delete_unless_newer(each.path, each.modified), batch)
        )
    return [each for each, gone in zip(batch, went, strict=True) if gone]


def _audit_rows(
    tables: Tables, batch: Sequence[Doomed], rows: Sequence[int | None], run_id: str
) -> pl.DataFrame:
    clock = tables.clock
    known, now = clock.known(), clock.storage()
    told = [
        (run_id, f"{known:%Y-%m}", each.table_name, each.path, each.size, count, each.reason,
         each.detail, now, code_version(), known)
        for each, count in zip(batch, rows, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(told, schema=DELETIONS.schema, orient="row")


def _rows(store: Store, each: Doomed) -> int | None:
    """Return the number of rows that a data file's footer tells; None where it tells none."""
    if not _is_data(each.path):
        return None
    try:
        footer = read_footer(store, each.path, each.size)
        return int(pl.scan_parquet(footer).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, StorageError, OSError):
        return None


def _put_back(store: Store, path: str, base: str) -> bool:
    """Store what lies aside under its own name, if it is whole; tell whether that was done."""
    with storage_errors(f"put back {store.uri_of(base)}"):
        content = (store.path / path).read_bytes()
    if hashlib.sha256(content).hexdigest() not in base:
        return False
    store.put(base, content)
    return True
