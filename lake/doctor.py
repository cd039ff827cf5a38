"""Is a lake sound? Every promise that can be looked at without reading rows is looked at.

Each check yields findings: ``ok``, ``mended`` (with ``mend``), or ``needs you`` with what to
do. A check that fails on the way is itself a finding, and the others go on. Rows and bytes
are for ``lake.verify``.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from contracts.dictionary import TABLE_PROPERTIES
from contracts.errors import (
    ChecksumError,
    ClockRegressionError,
    LakeFormatError,
    LakeNotFoundError,
    SnapshotIncompleteError,
    StorageError,
    TidemarkError,
    TornLogError,
    UnknownSnapshotError,
)
from contracts.tables import TABLES
from contracts.time import iso
from lake.knowledge import CLOCK_TOLERANCE, newest_knowledge
from lake.labels import every_label
from lake.leases import GRACE, every_lease
from lake.locks import every_lock
from lake.logs import log_of, log_path
from lake.manifest import load_manifest, snapshot_ids
from lake.pinlog import kept_ids, pin_states
from lake.probe import FOLDER as PROBES
from lake.probe import FULL, probe
from lake.reach import PinnedFiles, check_heads
from lake.root import LIVE, read_lake
from lake.sources import Tables
from lake.vacuum import Rules, put_back, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from contracts.spec import TableSpec
    from contracts.time import Clock
    from lake.logs import Log
    from lake.store import Listed, Store
    from lake.tables import View

OK, MENDED, NEEDS_YOU = "ok", "mended", "needs you"
SKEW = timedelta(seconds=60)
_DANGEROUS = ("delta.logRetentionDuration", "delta.enableExpiredLogCleanup")
_RECENT = 20
_FOLDER_PROBE = (2 << 10,) * 20
_RESTORE = "Restore it from a copy of the lake"
# A store's clock may tell whole seconds only.
_COARSE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: The check.
        verdict: ``ok``, ``mended`` or ``needs you``.
        found: What was found, one sentence.
        remedy: What to do; empty where nothing is to be done.
        code: The error's code; empty where nothing is wrong.
        exit_code: 0, or that of the error.
    """

    check: str
    verdict: str
    found: str
    remedy: str = ""
    code: str = ""
    exit_code: int = 0


@dataclass
class _Exam:
    """A lake that is being looked at; ``views`` holds the tables that could be opened."""

    store: Store
    clock: Clock
    tables: Tables
    mend: bool
    views: dict[str, View] = field(default_factory=dict)
    listings: dict[str, dict[str, Listed]] = field(default_factory=dict)

    def listing(self, spec: TableSpec) -> Mapping[str, Listed]:
        """Return what lies in a table's folder, asked once."""
        if spec.name not in self.listings:
            self.listings[spec.name] = self.store.listing(spec.path)
        return self.listings[spec.name]

    def log(self, spec: TableSpec) -> Log:
        return log_of(spec, self.listing(spec))


def examine(
    store: Store,
    clock: Clock,
    *,
    mend: bool = False,
    on_finding: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Look at a lake from top to bottom.

    Args:
        store: Where it is; a probe writes below ``probes/`` and deletes what it wrote.
        clock: The machine's clocks.
        mend: Mend what can be mended without losing anything.
        on_finding: Called with each finding as it is made.

    Raises:
        LakeNotFoundError: There is no lake here.
    """
    exam = _Exam(store, clock, Tables(store, clock), mend)
    findings: list[Finding] = []
    for name, check in _CHECKS.items():
        for finding in _findings(name, check, exam):
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
            if isinstance(finding, _Hopeless):
                return findings
    return findings


@dataclass(frozen=True, slots=True)
class _Hopeless(Finding):
    """A finding after which nothing else can be looked at."""


def _findings(
    name: str, check: Callable[[_Exam], Iterator[Finding]], exam: _Exam
) -> Iterator[Finding]:
    try:
        yield from check(exam)
    except LakeNotFoundError:
        raise
    except TidemarkError as error:
        yield needs_you(name, error)


def needs_you(check: str, error: TidemarkError) -> Finding:
    """Return the finding that an error stands for."""
    return Finding(check, NEEDS_YOU, error.message, error.remedy, error.code, error.exit_code)


def gravest(findings: list[Finding]) -> int:
    """Return the exit code: that of the gravest finding, 0 where all is well or mended."""
    return max((each.exit_code for each in findings), default=0)


def _lake(exam: _Exam) -> Iterator[Finding]:
    try:
        info = read_lake(exam.store)
    except LakeFormatError as error:
        yield _Hopeless("lake", NEEDS_YOU, error.message, error.remedy, error.code, error.exit_code)
        return
    yield Finding("lake", OK, f"lake.json: format {info.format_version}, origin {info.origin}")


def _tables(exam: _Exam) -> Iterator[Finding]:
    """Open every table; that compares its schema with the contract."""
    if read_lake(exam.store).holds is not None:
        yield Finding("tables", OK, "an export: it has snapshots, and no newest state")
        return
    lost = False
    for spec in TABLES.values():
        try:
            view = exam.tables[spec.name].head()
        except TidemarkError as error:
            yield needs_you("tables", error)
            lost = True
            continue
        if view.version < 0:
            for finding in _without_log(exam, spec):
                yield finding
                lost = True
            continue
        exam.views[spec.name] = view
        rows = sum(entry.rows for entry in view.files)
        told = f"{spec.name}: version {view.version}, {len(view.files):,} files, {rows:,} rows"
        yield Finding("tables", OK, told)
    if not lost:
        yield from _shortened(exam)


def _shortened(exam: _Exam) -> Iterator[Finding]:
    """Tell of a table that snapshots know at a newer version."""
    try:
        check_heads(exam.tables, PinnedFiles(exam.store))
    except TornLogError as error:
        yield needs_you("tables", error)
    except StorageError:
        return  # A manifest that is not what it was; the check of snapshots names it.


def _without_log(exam: _Exam, spec: TableSpec) -> Iterator[Finding]:
    """A table is created before its first file is written; only an import brings files alone."""
    files = {path for path in exam.listing(spec) if path.endswith(".parquet")}
    for snapshot_id in snapshot_ids(exam.store) if files else ():
        try:
            files -= load_manifest(exam.store, snapshot_id).files.keys()
        except TidemarkError:
            continue
    if files:
        error = TornLogError(
            f"{spec.name}: {len(files):,} data files and no log: the table reads as empty",
            remedy=f"{_RESTORE}: the folder {exam.store.uri_of(spec.path)}/_delta_log",
        )
        yield needs_you("tables", error)


def _properties(exam: _Exam) -> Iterator[Finding]:
    sound = 0
    for name in exam.views:
        table = exam.tables[name]
        told = table.properties()
        wrong = [key for key, value in TABLE_PROPERTIES.items() if told.get(key) != value]
        if not wrong:
            sound += 1
            continue
        grave = any(key in wrong for key in _DANGEROUS)
        what = "a clean-up of its log could destroy a pin" if grave else "not as it was created"
        found = f"{name}: {what} ({', '.join(wrong)})"
        if exam.mend:
            table.mend_properties()
            yield Finding("properties", MENDED, found)
        else:
            error = StorageError(found, remedy="Run `lake doctor --mend`")
            yield needs_you("properties", error)
    if sound:
        yield Finding("properties", OK, f"{sound} tables keep their log for ever")


def _logs(exam: _Exam) -> Iterator[Finding]:
    commits = 0
    for spec in TABLES.values():
        log = exam.log(spec)
        commits += len(log.commits)
        for version in [each for each, listed in log.commits.items() if listed.size == 0]:
            yield _torn(exam, spec, version, "is an empty file")
        for version in log.holes[:1]:
            yield _torn(exam, spec, version, "is missing")
        for version in sorted(log.commits)[-_RECENT:]:
            if log.commits[version].size and not _parses(exam.store, spec, version):
                yield _torn(exam, spec, version, "is not JSON")
    yield Finding("logs", OK, f"{commits:,} commits were looked at")


def _torn(exam: _Exam, spec: TableSpec, version: int, what: str) -> Finding:
    path = exam.store.uri_of(log_path(spec.path, version))
    message = f"{spec.name}: commit {version} {what} ({path})"
    remedy = f"{_RESTORE}, or move it away and ingest its span again"
    return needs_you("logs", TornLogError(message, remedy=remedy))


def _parses(store: Store, spec: TableSpec, version: int) -> bool:
    content = store.get(log_path(spec.path, version)) or b""
    try:
        return all(isinstance(json.loads(line), dict) for line in content.splitlines() if line)
    except ValueError:
        return False


def _files(exam: _Exam) -> Iterator[Finding]:
    """Compare the files that heads name with what is there."""
    if exam.mend:
        for path in put_back(exam.tables):
            exam.listings.clear()
            yield Finding("files", MENDED, f"{path} lay aside and was put back")
    count = 0
    for name, view in exam.views.items():
        named = {f"{view.spec.path}/{entry.path}": entry.size for entry in view.files}
        count += len(named)
        for fault in _missing(exam, view.spec, named):
            yield needs_you("files", _named(f"The head of {name} needs", fault))
    yield Finding("files", OK, f"{count:,} files of the heads were looked up")


def _missing(
    exam: _Exam, spec: TableSpec, named: Mapping[str, int]
) -> Iterator[tuple[str, int | None, int]]:
    """Yield path, size found and size named of every file that is not as it is named."""
    there = exam.listing(spec)
    for path, size in named.items():
        found = there.get(path)
        if found is None or found.size != size:
            yield path, None if found is None else found.size, size


def _named(who: str, fault: tuple[str, int | None, int]) -> StorageError:
    path, found, size = fault
    if found is None:
        remedy = f"{_RESTORE}; `lake doctor --mend` puts back what a deletion moved aside"
        return SnapshotIncompleteError(f"{who} {path}, which is missing", remedy=remedy)
    what = f"{who} {path} with {size} bytes; it has {found}"
    return ChecksumError(what, remedy=_RESTORE)


def _snapshots(exam: _Exam) -> Iterator[Finding]:
    """Load every manifest, which hashes it, and look up the files of those that are pinned."""
    states = pin_states(exam.store)
    sound = files = 0
    for snapshot_id in snapshot_ids(exam.store):
        try:
            manifest = load_manifest(exam.store, snapshot_id)
        except TidemarkError as error:
            yield needs_you("snapshots", error)
            continue
        if not states[snapshot_id].keeps:
            yield Finding("snapshots", OK, f"{snapshot_id} was given up")
            continue
        faults = [
            needs_you("snapshots", _named(f"Snapshot {snapshot_id} needs", fault))
            for name in manifest.tables
            for view in (manifest.view(name),)
            for fault in _missing(
                exam,
                view.spec,
                {f"{view.spec.path}/{entry.path}": entry.size for entry in view.files},
            )
        ]
        yield from faults
        sound += not faults
        files += sum(len(pinned["files"]) for pinned in manifest.tables.values())
    yield Finding("snapshots", OK, f"{sound} pinned snapshots have all of their {files:,} files")


def _names(exam: _Exam) -> Iterator[Finding]:
    """Check that labels, locks and pins name snapshots that are there, and kept."""
    states = pin_states(exam.store)
    labels, locks = every_label(exam.store), every_lock(exam.store)
    named = [(f"Label {label.label}", label.snapshot_id) for label in labels]
    named += [(f"Lock {lock}", lock.snapshot_id) for lock in locks]
    named += [("A pin", each) for each in kept_ids(exam.store) if each not in states]
    for who, snapshot_id in named:
        state = states.get(snapshot_id)
        if state is None:
            message = f"{who} names {snapshot_id}, which is not there"
            yield needs_you("names", UnknownSnapshotError(message, remedy=_RESTORE))
        elif not state.keeps:
            message = f"{who} names {snapshot_id}, which was given up"
            remedy = f"`lake snapshot pin {snapshot_id}` keeps what is left of it"
            yield needs_you("names", SnapshotIncompleteError(message, remedy=remedy))
    yield Finding("names", OK, f"{len(labels)} labels and {len(locks)} locks were looked up")


def _leases(exam: _Exam) -> Iterator[Finding]:
    now = exam.clock.storage()
    for lease in every_lease(exam.store):
        live = lease.is_live(now, GRACE)
        told = f"{lease.kind} since {iso(lease.stored_at)}: " + (
            "holds, so nothing is deleted" if live else "its holder has not come back"
        )
        remedy = "" if live else "`lake maintain --apply` clears it away"
        yield Finding("leases", OK, told, remedy)


def _leftovers(exam: _Exam) -> Iterator[Finding]:
    rules = Rules(grace=GRACE, data=False)
    try:
        found = survey(exam.tables, rules, now=exam.clock.storage())
    except (ChecksumError, SnapshotIncompleteError):
        return  # The checks of snapshots and names tell of it.
    left = [each for each in found.doomed if each.reason == "leftover"]
    if left:
        size = sum(each.size for each in left)
        told = f"{len(left)} files of crashed writes, {size / 1e6:,.1f} MB"
        yield Finding("leftovers", OK, told, "`lake maintain --apply` deletes them")


def _clock(exam: _Exam) -> Iterator[Finding]:
    """Compare this machine's clock with the store's, and with what the lake knows."""
    path = f"{PROBES}/{secrets.token_hex(8)}"
    before = exam.clock.storage()
    try:
        exam.store.create(path, b"clock")
        after = exam.clock.storage()
        told = exam.store.listing(PROBES)[path].modified
    finally:
        exam.store.delete(path)
    skew = max(before - told - _COARSE, told - after, timedelta(0))
    if skew > SKEW:
        raise ClockRegressionError(
            f"This machine's clock and the store's are {skew.total_seconds():,.0f} s apart",
            remedy="Set the clock right (NTP): leases and knowledge are dated by it",
        )
    newest = max(filter(None, map(newest_knowledge, exam.views.values())), default=None)
    ahead = newest is not None and newest > exam.clock.known() + CLOCK_TOLERANCE
    if newest is not None and ahead and read_lake(exam.store).origin == LIVE:
        raise ClockRegressionError(
            f"The lake holds knowledge of {iso(newest)}, which is yet to come",
            remedy="A writer's clock was ahead; set clocks right, then wait until that time",
        )
    yield Finding("clock", OK, f"within {SKEW.total_seconds():.0f} s of the store's")


def _store(exam: _Exam) -> Iterator[Finding]:
    """Let writers race for fresh keys; a store that loses a race would lose commits."""
    passed = probe(exam.store, sizes=_FOLDER_PROBE if exam.store.is_local else FULL)
    yield Finding("store", OK, f"creates are exclusive: {passed}")


_CHECKS: dict[str, Callable[[_Exam], Iterator[Finding]]] = {
    "lake": _lake,
    "tables": _tables,
    "properties": _properties,
    "logs": _logs,
    "files": _files,
    "snapshots": _snapshots,
    "names": _names,
    "leases": _leases,
    "leftovers": _leftovers,
    "clock": _clock,
    "store": _store,
}
