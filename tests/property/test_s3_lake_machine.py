"""The lake machine in a real bucket: walks that dice draw, each through most of its rules.

Hypothesis draws whole walks of one rule; in a folder that costs little, in a bucket it would
be all there is time for. For longer: TIDEMARK_S3_WALKS=100 TIDEMARK_S3_STEPS=30.
"""

from __future__ import annotations

import os
import random

import pytest
from faulty_store import FaultPlan
from machine_support import NAMES
from test_lake_machine import LakeMachine

from lake.manifest import load_manifest

WALKS = int(os.environ.get("TIDEMARK_S3_WALKS", "2"))
STEPS = int(os.environ.get("TIDEMARK_S3_STEPS", "8"))


class Walk(LakeMachine):
    """The machine, walked by dice; what it prints reproduces a failure, with the seed."""

    tell = staticmethod(print)

    def __init__(self, bucket, seed):
        super().__init__(bucket)
        self.dice = random.Random(seed)

    def plan(self):
        seed = self.dice.randrange(2**32)
        crash_at = self.dice.randint(1, 12)
        return self.dice.choice(
            [None, FaultPlan(seed, rate=0.2), FaultPlan(seed, crash_at=crash_at)]
        )

    def go(self, steps):
        """Take as many steps; the last two replace files that are pinned, and vacuum."""
        drawn = []
        while len(drawn) < steps - 2:
            drawn += self.dice.sample(ACTS, len(ACTS))
        for act in [*drawn[: steps - 2], Walk.revise_some, Walk.maintain_by_vacuum]:
            plan = self.plan()
            self.tell(act.__name__, plan)
            act(self, plan)
            self.the_heads_are_what_the_model_says()
            self.check_pins()

    def ingest_some(self, plan):
        first = self.dice.randrange(40)
        minutes = range(first, first + self.dice.randint(1, 8))
        self.ingest_rows(self.dice.choice(NAMES), minutes, self.close(), plan)

    def revise_some(self, plan):
        chosen = self.dice.sample(sorted(self.model.versions), self.dice.randint(1, 6))
        self.revise_keys(chosen, self.close(), plan)
        self.ingest_held(chosen[0][0])

    def refuse_some(self, plan):
        self.refuse(self.dice.sample(range(50), 3), plan)

    def pin_and_rot(self, plan):
        self.snapshot_under(plan)
        manifest = load_manifest(self.kernel.store, self.dice.choice(sorted(self.pinned)))
        path = self.dice.choice(sorted(manifest.files))
        self.rot(manifest, path, self.dice.randrange(manifest.files[path]))

    def give_one_up(self, plan):
        if len(self.pinned) == 1:
            self.revise_some(None)
            self.snapshot_under(plan)
        snapshot_id = self.dice.choice(sorted(self.pinned))
        self.give_up(snapshot_id, plan)
        self.read_given_up(snapshot_id)

    def close(self):
        return float(self.dice.randrange(100, 1000))


ACTS = [
    Walk.ingest_some,
    Walk.revise_some,
    Walk.refuse_some,
    Walk.pin_and_rot,
    Walk.give_one_up,
    Walk.maintain_by_compaction,
    Walk.maintain_by_checkpoints,
    Walk.maintain_by_vacuum,
    Walk.maintain_by_vacuum_with_grace,
]


def walked(bucket, seed, steps):
    """Take one walk, in a folder where no bucket is named."""
    walk = Walk(bucket, seed)
    try:
        walk.begin()
        walk.go(steps)
    finally:
        walk.teardown()


@pytest.mark.parametrize("seed", range(WALKS))
def test_whatever_is_done_and_whatever_fails_the_promises_hold(s3_root, seed):
    walked(s3_root, seed, STEPS)
