"""The local half of a store: a folder, with every write forced to disk where that is asked."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.time import from_micros

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object: its bytes, and when the store last wrote it."""

    size: int
    modified: datetime


class Folder:
    """Files below one folder; raises what the operating system raises.

    Args:
        path: The folder; it is made by the first write.
        fsync: Whether files and folders are forced to disk before they count as written.
    """

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.path = path
        self._fsync = fsync

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Stage under ``NAME#N``, which no reader takes for a file, then rename."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = _aside(target)
        try:
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
            staged.replace(target)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        self._sync(target.parent)

    def size(self, path: str) -> int | None:
        """Return the size of a file, or None where there is none."""
        try:
            # Asked of thousands of files: building a Path takes longer than the question.
            found = os.stat(f"{self.path}/{path}")  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def delete_unless_newer(self, path: str, modified: datetime) -> bool:
        """Move a file aside, look at it, and delete it or put it back."""
        target = self.path / path
        aside = _aside(target)
        try:
            target.rename(aside)
        except FileNotFoundError:
            return False
        newer = _modified(aside.stat()) > modified
        if newer:
            with suppress(FileExistsError):
                os.link(aside, target)
        aside.unlink()
        return not newer

    def leftovers(self) -> dict[str, Listed]:
        """Return what was staged (``NAME#N``) and not finished, or is being staged."""
        found = {}
        for folder, _, names in os.walk(self.path):
            for name in names:
                if "#" in name:
                    staged = Path(folder, name)
                    with suppress(FileNotFoundError):
                        told = staged.stat()
                        path = staged.relative_to(self.path).as_posix()
                        found[path] = Listed(told.st_size, _modified(told))
        return found

    def sync(self, path: str) -> None:
        """Force a file and its folder to disk."""
        self._sync(self.path / path)
        self._sync((self.path / path).parent)

    def _sync(self, path: Path) -> None:
        if not self._fsync:
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}#{secrets.token_hex(4)}")


def _modified(told: os.stat_result) -> datetime:
    return from_micros(told.st_mtime_ns // 1_000)
