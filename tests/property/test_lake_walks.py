"""The lake machine in a folder, walked by dice: each walk goes through most of its rules.

The first walks that Hypothesis draws repeat one rule; these make up for them. For longer:
TIDEMARK_WALKS=100 TIDEMARK_WALK_STEPS=30.
"""

from __future__ import annotations

import os

import pytest
from test_s3_lake_machine import walked

WALKS = int(os.environ.get("TIDEMARK_WALKS", "3"))
STEPS = int(os.environ.get("TIDEMARK_WALK_STEPS", "11"))


@pytest.mark.parametrize("seed", range(WALKS))
def test_whatever_is_done_and_whatever_fails_the_promises_hold(seed):
    walked(None, seed, STEPS)
