"""What lies in a table's ``_delta_log``: commits, checkpoints, and what was removed of late.

Read from a listing and from the JSON of single commits; opening a table is another matter
(``lake.tables``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from contracts.errors import TornLogError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from contracts.spec import TableSpec
    from lake.store import Listed, Store

_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint(?:\.[\w.-]+)?\.parquet")


def log_path(table_path: str, version: int) -> str:
    """Return where a table's log has a version."""
    return f"{table_path}/_delta_log/{version:020d}.json"


@dataclass(frozen=True, slots=True)
class Log:
    """The files of one table's log.

    Attributes:
        commits: Listed commit files by version.
        checkpoints: Versions that have a checkpoint, ascending.
    """

    commits: Mapping[int, Listed]
    checkpoints: tuple[int, ...]

    @property
    def newest(self) -> int:
        """The newest version that has a commit file, or -1."""
        return max(self.commits, default=-1)

    @property
    def behind(self) -> int:
        """Number of commits since the last checkpoint."""
        last = self.checkpoints[-1] if self.checkpoints else -1
        return self.newest - last

    @property
    def holes(self) -> list[int]:
        """Versions without a commit file between others that have one."""
        return [version for version in range(self.newest) if version not in self.commits]


def log_of(spec: TableSpec, listing: Mapping[str, Listed]) -> Log:
    """Return the log of a table from the listing of its folder."""
    commits, checkpoints = {}, set()
    for path, listed in listing.items():
        below = path.removeprefix(f"{spec.path}/")
        if found := _COMMIT.fullmatch(below):
            commits[int(found[1])] = listed
        elif found := _CHECKPOINT.fullmatch(below):
            checkpoints.add(int(found[1]))
    return Log(commits, tuple(sorted(checkpoints)))


def removed_since(store: Store, spec: TableSpec, log: Log, moment: datetime) -> dict[str, datetime]:
    """Return the data files that commits after ``moment`` removed, and when.

    Args:
        store: Where the log is.
        spec: The table.
        log: Its log.
        moment: By the store's clock.

    Shape: paths below the table's folder.

    Raises:
        TornLogError: A commit cannot be read.
    """
    removed: dict[str, datetime] = {}
    for version, listed in sorted(log.commits.items()):
        if listed.modified > moment:
            for path in _removed(store, spec, version):
                removed[path] = listed.modified
    return removed


def _removed(store: Store, spec: TableSpec, version: int) -> list[str]:
    path = log_path(spec.path, version)
    content = store.get(path) or b""
    try:
        actions = [json.loads(line) for line in content.splitlines() if line.strip()]
        return [unquote(each["remove"]["path"]) for each in actions if "remove" in each]
    except (ValueError, KeyError, TypeError) as error:
        raise TornLogError(
            f"Commit {version} of {store.uri_of(spec.path)} cannot be read",
            remedy="Restore the file from a copy of the lake; nothing was deleted",
            path=path,
        ) from error
