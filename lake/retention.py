"""Retention of bronze.responses: whole old days go, what later days refer to stays.

A row whose body was stored up to seven days before carries no payload (``lake.landing``). So
of the days that expire one row stays for each body that a row of a kept day refers to.
What a pinned snapshot names is removed from the head only: its files stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from contracts.tables import RESPONSES
from lake.landing import ELSEWHERE
from lake.scan import collect_files, scan_files
from lake.tables import Change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lake.parts import FileEntry
    from lake.store import Store
    from lake.tables import Table, View


@dataclass(frozen=True, slots=True)
class Expiry:
    """What expires of a venue's answers.

    Attributes:
        remove: Files that go from the head.
        write: Rows of them that stay, a frame for each day.
    """

    remove: Sequence[FileEntry]
    write: Sequence[pl.DataFrame]

    @property
    def rows(self) -> int:
        """Number of rows that go."""
        stay = sum(frame.height for frame in self.write)
        return sum(entry.rows for entry in self.remove) - stay


def first_day_kept(known: datetime, days: int) -> str:
    """Return the oldest day, YYYY-MM-DD, that a policy of so many days keeps whole."""
    return f"{known - timedelta(days=days):%Y-%m-%d}"


def venues_with_expired(view: View, first_kept: str) -> list[str]:
    """Return the venues that have answers of days before ``first_kept``."""
    expired = (entry for entry in view.files if entry.partition["date"] < first_kept)
    return sorted({entry.partition["venue"] for entry in expired})


def expiry(store: Store, view: View, *, venue: str, first_kept: str) -> Expiry:
    """Return what goes of a venue when the days before ``first_kept`` expire."""
    mine = [entry for entry in view.files if entry.partition["venue"] == venue]
    expired = [entry for entry in mine if entry.partition["date"] < first_kept]
    holders = _holders(store, expired, _needed_bodies(store, mine, first_kept))
    days: dict[str, list[FileEntry]] = {}
    for entry in expired:
        days.setdefault(entry.partition["date"], []).append(entry)
    remove: list[FileEntry] = []
    write: list[pl.DataFrame] = []
    for _, files in sorted(days.items()):
        stays = _rows_of(store, files, holders)
        if stays.height < sum(entry.rows for entry in files):
            remove += files
            write += [stays.sort(RESPONSES.sort_by)] if stays.height else []
    return Expiry(remove, write)


def expire(table: Table, *, venue: str, first_kept: str) -> Expiry:
    """Remove a venue's expired days from the head, in one commit; return what went.

    Raises:
        CommitConflictError: Writers came in between too many times.
    """
    done = Expiry((), ())

    def plan(view: View) -> Change:
        nonlocal done
        done = expiry(table.store, view, venue=venue, first_kept=first_kept)
        told = {"tidemark_maintenance": "retention", "tidemark_first_kept": first_kept}
        return Change(done.write, done.remove, metadata=told)

    table.transact(f"land/{venue}", plan)
    return done


def _needed_bodies(store: Store, files: Sequence[FileEntry], first_kept: str) -> list[str]:
    """Return the bodies that kept rows refer to and no kept row holds."""
    kept = [entry for entry in files if entry.partition["date"] >= first_kept]
    if not kept:
        return []
    told = scan_files(store, RESPONSES, kept).select(
        "sha256", held=pl.col("payload_encoding") != ELSEWHERE
    )
    bodies = told.group_by("sha256").agg(pl.col("held").any()).filter(~pl.col("held"))
    return collect_files(store, RESPONSES, kept, bodies)["sha256"].to_list()


def _holders(store: Store, files: Sequence[FileEntry], bodies: Sequence[str]) -> list[str]:
    """Return the newest response that holds each of some bodies."""
    if not bodies or not files:
        return []
    held = (
        scan_files(store, RESPONSES, files)
        .filter(pl.col("sha256").is_in(bodies), pl.col("payload_encoding") != ELSEWHERE)
        .select("sha256", "response_id", "received_at", "sequence")
        .sort("received_at", "sequence")
        .group_by("sha256")
        .agg(pl.col("response_id").last())
    )
    return collect_files(store, RESPONSES, files, held)["response_id"].to_list()


def _rows_of(store: Store, files: Sequence[FileEntry], responses: Sequence[str]) -> pl.DataFrame:
    if not responses:
        return RESPONSES.empty()
    rows = scan_files(store, RESPONSES, files).filter(pl.col("response_id").is_in(responses))
    return collect_files(store, RESPONSES, files, rows)
