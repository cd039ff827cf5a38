"""Snapshot: pin every table to one immutable id.

Takes the lake as it stands, gives a manifest; no table is written to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lake.snapshots import create_snapshot

if TYPE_CHECKING:
    from flows.work import Work
    from lake.manifest import Manifest


async def snapshot(work: Work, *, label: str | None = None) -> Manifest:
    """Pin the current state; the same state gives the same snapshot."""
    return await asyncio.to_thread(create_snapshot, work.tables, label=label)
