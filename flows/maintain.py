"""Maintain: few files, short logs, and nothing on disk that nobody needs.

Takes the lake as it stands, changes no row that anybody reads, and deletes only what no head
and no pinned snapshot names (``lake.vacuum``). Without ``apply`` it says what it would do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.dictionary import TABLE_PROPERTIES
from contracts.errors import CommitConflictError
from contracts.tables import RESPONSES, TABLES
from flows.runs import recorded_run
from lake.compact import (
    closed_partitions,
    closing_column,
    compact_partition,
    packing,
    partition_text,
)
from lake.leases import GRACE
from lake.logs import log_of
from lake.retention import expire, expiry, first_day_kept, venues_with_expired
from lake.vacuum import Rules, Survey, put_back, survey, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flows.work import Work

PARTS = ("retention", "compact", "checkpoint", "vacuum", "leftovers")
MANY_COMMITS = 10
_SCHEMA = {
    "part": pl.String(),
    "table_name": pl.String(),
    "place": pl.String(),
    "files": pl.Int64(),
    "size_bytes": pl.Int64(),
    "reason": pl.String(),
}


@dataclass(frozen=True, slots=True)
class MaintainRequest:
    """What to maintain, and how.

    Attributes:
        apply: Do it; else only say what would be done.
        only: The parts, of ``PARTS``.
        grace: Minimal age of what is deleted; the setting's when None.
        lease_grace: Age from which on a lease is dead.
    """

    apply: bool = False
    only: tuple[str, ...] = PARTS
    grace: timedelta | None = None
    lease_grace: timedelta = GRACE


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was done, or would be.

    Attributes:
        part: Which part of the maintenance.
        table_name: The table; empty where none.
        place: Partition, venue or version.
        files: Number of files it takes.
        size_bytes: Their size.
        reason: Why, or what it comes to.
    """

    part: str
    table_name: str
    place: str
    files: int
    size_bytes: int
    reason: str


@dataclass
class MaintainReport:
    """What a maintenance did, or would do.

    Attributes:
        applied: Whether it was done.
        actions: What.
        notes: What a person should know: what is kept and why, what was left for later.
    """

    applied: bool
    actions: list[Action] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def frame(self) -> pl.DataFrame:
        """Return one row per action."""
        rows = [
            (each.part, each.table_name, each.place, each.files, each.size_bytes, each.reason)
            for each in self.actions
        ]
        return pl.DataFrame(rows, schema=_SCHEMA, orient="row")

    def counts(self) -> dict[str, int]:
        """Return the sums for ops.runs and for people: files and bytes of each part."""
        told: dict[str, int] = {}
        for each in self.actions:
            for name, count in (("files", each.files), ("bytes", each.size_bytes)):
                key = f"{each.part}_{name}"
                told[key] = told.get(key, 0) + count
        return told


async def maintain(work: Work, request: MaintainRequest) -> MaintainReport:
    """Maintain a lake; a dry run writes nothing, not even to ops.runs.

    Raises:
        StorageError: A log, a manifest or a file cannot be trusted; nothing is deleted then.
    """
    if not request.apply:
        return await asyncio.to_thread(_run, work, request)
    told = {"only": list(request.only)}
    async with recorded_run(work, "maintain", told) as detail:
        report = await asyncio.to_thread(_run, work, request)
        detail.update(report.counts())
        return report


def _run(work: Work, request: MaintainRequest) -> MaintainReport:
    report = MaintainReport(request.apply)
    if request.apply and "leftovers" in request.only:
        report.notes += [f"put back: {path}" for path in put_back(work.tables)]
    steps: dict[str, Callable[..., Iterable[Action]]] = {
        "retention": _retention,
        "compact": _compact,
        "checkpoint": _checkpoint,
    }
    for part, step in steps.items():
        if part in request.only:
            for action in step(work, request, report):
                report.actions.append(action)
                work.progress.note(told_action(action))
    if {"vacuum", "leftovers"} & set(request.only):
        _vacuum(work, request, report)
    return report


def told_action(action: Action) -> str:
    """Return an action as a line for people."""
    where = " ".join(filter(None, (action.table_name, action.place)))
    return (
        f"{action.part}: {where or 'lake'}: {action.files:,} files, "
        f"{action.size_bytes / 1e6:,.1f} MB, {action.reason}"
    )


def _retention(work: Work, request: MaintainRequest, _: MaintainReport) -> Iterator[Action]:
    first_kept = _first_kept(work)
    if first_kept is None:
        return
    table = work.table(RESPONSES.name)
    for venue in venues_with_expired(table.head(), first_kept):
        if request.apply:
            gone = expire(table, venue=venue, first_kept=first_kept)
        else:
            gone = expiry(work.store, table.head(), venue=venue, first_kept=first_kept)
        if gone.remove:
            size = sum(entry.size for entry in gone.remove)
            reason = f"{gone.rows:,} answers of days before {first_kept}"
            yield Action("retention", table.spec.name, venue, len(gone.remove), size, reason)


def _first_kept(work: Work) -> str | None:
    days = work.settings.bronze_days
    return None if days is None else first_day_kept(work.clock.known(), days)


def _compact(work: Work, request: MaintainRequest, report: MaintainReport) -> Iterator[Action]:
    for spec in TABLES.values():
        if closing_column(spec) is None:
            continue
        table = work.table(spec.name)
        for files in closed_partitions(table.head(), work.clock.known()):
            found = packing(work.store, spec, files)
            if found is None:
                continue
            reason = f"become {found.files_after} or few more"
            try:
                if request.apply:
                    compact_partition(table, files[0].partition)
                    after = len(table.head().partition(files[0].partition))
                    reason = f"{len(files)} files became {after}"
            except CommitConflictError as error:
                place = partition_text(spec, files[0])
                report.notes.append(f"left for the next time: {spec.name} {place}: {error.message}")
                continue
            yield Action(
                "compact", spec.name, found.partition, found.files, found.size_bytes, reason
            )


def _checkpoint(work: Work, request: MaintainRequest, report: MaintainReport) -> Iterator[Action]:
    for spec in TABLES.values():
        log = log_of(spec, work.store.listing(f"{spec.path}/_delta_log"))
        if log.behind <= MANY_COMMITS:
            continue
        table = work.table(spec.name)
        if not TABLE_PROPERTIES.items() <= table.properties().items():
            report.notes.append(
                f"no checkpoint of {spec.name}: a clean-up of its log could destroy a pin; "
                "`lake doctor --mend` mends that"
            )
            continue
        if request.apply:
            table.checkpoint()
        size = sum(listed.size for listed in log.commits.values())
        reason = f"{log.behind} commits since the last checkpoint"
        yield Action("checkpoint", spec.name, f"version {log.newest}", 1, size, reason)


def _vacuum(work: Work, request: MaintainRequest, report: MaintainReport) -> None:
    grace = request.grace
    rules = Rules(
        grace=timedelta(hours=work.settings.vacuum_grace_hours) if grace is None else grace,
        lease_grace=request.lease_grace,
        data="vacuum" in request.only,
        leftovers="leftovers" in request.only,
        first_kept=_first_kept(work),
    )
    if request.apply:

        def told(done: int, total: int) -> None:
            work.progress.note(f"vacuum: {done:,} of {total:,} objects")

        found = sweep(work.tables, rules, run_id=work.run_id, on_progress=told)
    else:
        found = survey(work.tables, rules, now=work.clock.storage())
    report.actions += _summed(found)
    report.notes += _kept(found, rules)


def _summed(found: Survey) -> Iterator[Action]:
    """Yield one action per table and reason."""
    groups: dict[tuple[str, str], list[int]] = {}
    details = {}
    for each in found.doomed:
        groups.setdefault((each.table_name, each.reason), []).append(each.size)
        details[each.reason] = each.detail
    for (table_name, reason), sizes in sorted(groups.items()):
        part = "leftovers" if reason in ("leftover", "lease") else "vacuum"
        why = f"{reason}: {details[reason]}"
        yield Action(part, table_name, "", len(sizes), sum(sizes), why)


def _kept(found: Survey, rules: Rules) -> Iterator[str]:
    files, size = found.pinned
    if files:
        yield f"kept: {files:,} files, {size / 1e6:,.1f} MB that only pinned snapshots name"
    files, size = found.young
    if files:
        yield f"kept: {files:,} files, {size / 1e6:,.1f} MB within the grace of {rules.grace}"
    for each in found.held_up:
        yield (
            f"nothing is deleted while a lease holds: {each.kind} since {each.stored_at:%H:%M:%S}"
            f" UTC ({each.path})"
        )
