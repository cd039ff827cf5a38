"""Whatever is done to a lake in whatever order, and whatever fails, its promises hold.

Each rule works on a real lake and on a dictionary. A rule may be disturbed: by faults drawn
from a seed, or by the death of the process before its n-th storage operation. Then the lake
is opened again and the rule is run once more without disturbance: the outcome must be the one
of a run without faults. After every rule the heads show what the dictionary says, now and as
known before, and every pinned snapshot shows what it showed when it was made.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from faulty_store import Crash, FaultPlan, faults
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernel_support import GENERATED, Kernel, seal_early
from machine_support import (
    NAMES,
    Model,
    assert_is,
    compact_all,
    data_files,
    frozen,
    reachable,
    readable,
    refused_frame,
    rows_of,
    standing,
    unpin,
    vacuum_all,
)

from contracts.errors import (
    ChecksumError,
    RequestError,
    SnapshotIncompleteError,
    StorageError,
)
from lake.leases import every_lease
from lake.manifest import load_manifest
from lake.rowhash import combine
from lake.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

# For longer: TIDEMARK_MACHINE_EXAMPLES=500 HYPOTHESIS_PROFILE=search pytest -o timeout=0 THIS_FILE.
# A failure prints the steps, the seeds of the faults, and what reproduces it.
EXAMPLES = int(os.environ.get("TIDEMARK_MACHINE_EXAMPLES", "8"))
STEPS = int(os.environ.get("TIDEMARK_MACHINE_STEPS", "14"))
MOST_SNAPSHOTS = 4
MAINTENANCE = ("compaction", "checkpoints", "vacuum", "vacuum", "vacuum_with_grace")

SPANS = st.builds(
    lambda first, size: range(first, first + size), st.integers(0, 40), st.integers(1, 8)
)
CLOSES = st.sampled_from([100.0, 101.5, 250.0])
PLANS = st.one_of(
    st.none(),
    st.builds(FaultPlan, st.integers(0, 2**32), rate=st.sampled_from([0.05, 0.2])),
    st.builds(FaultPlan, st.integers(0, 2**32), crash_at=st.integers(1, 12)),
)


class LakeMachine(RuleBasedStateMachine):
    """One lake, its model, and what each snapshot showed; in a folder, or below ``bucket``."""

    tell = staticmethod(note)

    def __init__(self, bucket: str | None = None) -> None:
        super().__init__()
        self.bucket = bucket
        self.patch = pytest.MonkeyPatch()
        seal_early(self.patch, 20, fan_in=3, series=6)

    @initialize()
    def begin(self) -> None:
        """Begin with bars of two instruments and a snapshot of them."""
        self.folder = tempfile.TemporaryDirectory(prefix="tidemark-machine-")
        self.root = f"{self.bucket or self.folder.name}/{uuid.uuid4().hex}"
        self.kernel = Kernel(self.root)
        self.model = Model()
        self.pinned: dict[str, list[object]] = {}
        self.given_up: dict[str, list[object]] = {}
        self.release = 0
        for name, last in zip(NAMES, (20, 9), strict=True):
            self.ingest_rows(name, range(last), 100.0, None)
        self.snapshot_under(None)

    def teardown(self) -> None:
        self.patch.undo()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def restart(self) -> None:
        """Open the lake as a new process does."""
        self.kernel = Kernel(self.root, known=self.kernel.clock.known())

    def hashes(self) -> dict[str, str]:
        """Return the logical hash of every table."""
        return {
            table.spec.name: combine(entry.row_hash for entry in table.head().files)
            for table in standing(self.kernel)
        }

    def disturbed(
        self, plan: FaultPlan | None, act: Callable[[], object], *, fresh: bool = False
    ) -> object:
        """Do something under a plan of faults; where it fails, start again and do it well."""
        if plan is None:
            return act()
        kinds = tuple(kind for kind in plan.kinds if not fresh or kind != "stale")
        told = FaultPlan(plan.seed, plan.rate, plan.crash_at, kinds)
        try:
            with faults(told):
                return act()
        except (StorageError, Crash, RequestError) as error:
            # Who confirms an unpin by a stale listing is told that nobody asked for it.
            if isinstance(error, RequestError) and "stale" not in {kind for *_, kind in told.told}:
                raise
            self.tell(
                f"plan seed={plan.seed} rate={plan.rate} crash_at={plan.crash_at}: {told.told}"
            )
            self.tell(f"failed with {type(error).__name__}: {error}")
        self.restart()
        assert readable(self.kernel)
        self.check_pins()
        return act()

    # What writers do -----------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), minutes=SPANS, close=CLOSES, plan=PLANS)
    def ingest(self, name, minutes, close, plan) -> None:
        """New bars, and some that are there already with this value or another."""
        self.ingest_rows(name, minutes, close, plan)

    def ingest_rows(self, name, minutes, close, plan) -> None:
        rows = rows_of(name, minutes, close)
        known = self.kernel.step(minutes=1)

        def act() -> None:
            self.kernel.publish(rows)
            self.kernel.observe(minutes.start, minutes.stop, instrument=name)

        self.disturbed(plan, act)
        self.model.publish(rows, known)
        self.model.present |= {(name, minute) for minute in minutes}

    @rule(data=st.data(), close=CLOSES, plan=PLANS)
    def revise(self, data, close, plan) -> None:
        self.revise_rows(data, close, plan)

    @rule(data=st.data(), close=CLOSES, plan=PLANS)
    def revise_once_more(self, data, close, plan) -> None:
        """Drawn as often as all maintenance together."""
        self.revise_rows(data, close, plan)

    def revise_rows(self, data, close, plan) -> None:
        keys = st.sampled_from(sorted(self.model.versions))
        self.revise_keys(
            data.draw(st.lists(keys, min_size=1, max_size=6, unique=True)), close, plan
        )

    def revise_keys(self, chosen, close, plan) -> None:
        rows = [row for name, at in chosen for row in rows_of(name, range(at, at + 1), close)]
        known = self.kernel.step(minutes=1)
        self.disturbed(plan, lambda: self.kernel.publish(rows))
        self.model.publish(rows, known)

    @rule(name=st.sampled_from(NAMES))
    def ingest_again(self, name) -> None:
        self.ingest_held(name)

    def ingest_held(self, name) -> None:
        """What is stored already makes no commit."""
        self.kernel.step(minutes=1)
        before = self.kernel.versions()
        held = {key[1]: told for key, told in self.model.at(None).items() if key[0] == name}
        rows = [
            row
            for at, (_, close) in held.items()
            for row in rows_of(name, range(at, at + 1), close - at / 8)
        ]
        assert self.kernel.publish(rows).new == 0
        for minute in held:
            if (name, minute) in self.model.present:
                self.kernel.observe(minute, minute + 1, instrument=name)
        assert self.kernel.versions() == before

    @rule(minutes=st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True), plan=PLANS)
    def quarantine(self, minutes, plan) -> None:
        self.refuse(minutes, plan)

    def refuse(self, minutes, plan) -> None:
        frame = refused_frame(minutes, self.kernel.step(minutes=1))
        self.disturbed(plan, lambda: self.kernel.quarantine(frame))
        self.model.refused |= set(minutes)

    # What readers and keepers do ---------------------------------------------------------

    @precondition(lambda self: len(self.pinned) < MOST_SNAPSHOTS)
    @rule(plan=PLANS)
    def snapshot(self, plan) -> None:
        self.snapshot_under(plan)

    def snapshot_under(self, plan) -> None:
        manifest = self.disturbed(plan, self.kernel.snapshot)
        assert self.kernel.snapshot().snapshot_id == manifest.snapshot_id
        shown = frozen(self.kernel.lake(snapshot=manifest.snapshot_id))
        if manifest.snapshot_id in self.pinned:
            assert shown == self.pinned[manifest.snapshot_id]
        self.pinned[manifest.snapshot_id] = shown
        self.given_up.pop(manifest.snapshot_id, None)

    @rule(what=st.sampled_from(MAINTENANCE), plan=PLANS)
    def maintain(self, what, plan) -> None:
        getattr(self, f"maintain_by_{what}")(plan)

    def maintain_by_compaction(self, plan) -> None:
        """Compact everything, as if the year were over; nobody sees a difference."""
        before = self.hashes()
        self.disturbed(plan, lambda: compact_all(self.kernel))
        assert self.hashes() == before
        versions = self.kernel.versions()
        compact_all(self.kernel)
        assert self.kernel.versions() == versions

    def maintain_by_checkpoints(self, plan) -> None:
        self.disturbed(plan, lambda: [table.checkpoint() for table in standing(self.kernel)])

    def maintain_by_vacuum(self, plan) -> None:
        """Delete all that nothing reaches: exactly that is gone, and each object has its row.

        With no grace a listing must not be stale; how long it may be is what the grace is for.
        """
        self.disturbed(plan, lambda: vacuum_all(self.kernel), fresh=True)
        assert data_files(self.kernel) == reachable(self.kernel)
        assert not self.kernel.store.leftovers()
        assert not every_lease(self.kernel.store)

    def maintain_by_vacuum_with_grace(self, plan) -> None:
        """What was written or removed within the grace stays, whatever a listing lacks."""
        before = data_files(self.kernel)
        self.disturbed(plan, lambda: vacuum_all(self.kernel, grace=timedelta(hours=1)))
        assert data_files(self.kernel) >= before

    @precondition(lambda self: len(self.pinned) > 1)
    @rule(data=st.data(), plan=PLANS)
    def unpin(self, data, plan) -> None:
        """What is unpinned is no longer promised; it reads as before, or says what is gone."""
        self.give_up(data.draw(st.sampled_from(sorted(self.pinned))), plan)

    def give_up(self, snapshot_id, plan) -> None:
        self.disturbed(plan, lambda: unpin(self.kernel, snapshot_id))
        self.given_up[snapshot_id] = self.pinned.pop(snapshot_id)

    @precondition(lambda self: self.given_up)
    @rule(data=st.data())
    def read_what_was_given_up(self, data) -> None:
        self.read_given_up(data.draw(st.sampled_from(sorted(self.given_up))))

    def read_given_up(self, snapshot_id) -> None:
        gone = ""
        try:
            shown = frozen(self.kernel.lake(snapshot=snapshot_id, verify=True))
        except SnapshotIncompleteError as error:
            gone = str(error)
        assert "unpinned" in gone if gone else shown == self.given_up[snapshot_id]

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def flip_a_byte(self, data) -> None:
        """Rot is found and named, and nothing is the worse for it when the file is restored."""
        manifest = load_manifest(self.kernel.store, data.draw(st.sampled_from(sorted(self.pinned))))
        path = data.draw(st.sampled_from(sorted(manifest.files)))
        self.rot(manifest, path, data.draw(st.integers(0, manifest.files[path] - 1)))

    def rot(self, manifest, path, at) -> None:
        store = self.kernel.store
        sound = store.get(path)
        store.put(path, sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(ChecksumError, match=path.rpartition("/")[2]):
            verify(store, manifest)
        store.put(path, sound)

    @rule(upgraded=st.booleans())
    def restarted(self, upgraded) -> None:
        """Another process goes on with the lake, at times of another release."""
        if upgraded:
            self.release += 1
            self.patch.setattr("lake.snapshots.code_version", lambda told=self.release: f"9.{told}")
        self.restart()

    # What holds after every step -----------------------------------------------------

    @invariant()
    def the_heads_are_what_the_model_says(self) -> None:
        if hasattr(self, "model"):
            assert_is(self.kernel, self.model)

    @invariant()
    def check_pins(self) -> None:
        if not hasattr(self, "pinned"):
            return
        for snapshot_id, shown in self.pinned.items():
            lk = self.kernel.lake(snapshot=snapshot_id, verify=True)
            assert frozen(lk) == shown, snapshot_id
            assert verify(self.kernel.store, lk.manifest, level="quick").files


LakeMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    phases=GENERATED,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


class TestLakeMachine(LakeMachine.TestCase):
    """The machine as a test; its seeds are drawn by Hypothesis and printed on a failure."""
