"""The store under a lake: a local folder or a bucket, reached through one small surface.

Plain objects (manifests, leases, data files) are put, read and listed here; Delta commits
go through ``lake.tables``. Paths are relative to the lake's root and use ``/``.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from contracts.errors import SettingsError, StoreUnavailableError
from contracts.time import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

_REMEDIES = {
    errno.ENOSPC: "Free some space and run again; nothing half-written is visible",
    errno.EDQUOT: "Raise the quota and run again; nothing half-written is visible",
    errno.EROFS: "Mount it writable, or read with a lake that is elsewhere",
    errno.EACCES: "Give this user the right to write there",
    errno.EPERM: "Give this user the right to write there",
}
_SIGNS = {
    "no space left": errno.ENOSPC,
    "quota exceeded": errno.EDQUOT,
    "read-only file system": errno.EROFS,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
}


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object: its bytes, and when the store last wrote it."""

    size: int
    modified: datetime


class Store:
    """Objects below one root.

    Args:
        root: A folder, or ``s3://bucket/prefix``.
        options: Object-store options in the spelling of delta-rs, for instance
            ``AWS_ENDPOINT_URL``; the environment is read where they are silent.
        fsync: Whether local files are forced to disk before they count as written.

    Raises:
        SettingsError: The root holds a character that partition paths cannot live with.
    """

    def __init__(
        self, root: str | Path, *, options: Mapping[str, str] | None = None, fsync: bool = True
    ) -> None:
        text = str(root)
        self.is_local = "://" not in text or text.startswith("file://")
        self.options = dict(options or {})
        self._fsync = fsync and self.is_local
        if self.is_local:
            self.path = Path(text.removeprefix("file://")).expanduser().absolute()
            self.uri = str(self.path)
        else:
            self.uri = text.rstrip("/")
        for sign in "=*?[#%":
            if sign in self.uri:
                raise SettingsError(
                    f"The lake's root {self.uri!r} holds {sign!r}",
                    remedy="Choose a path without = * ? [ # %: readers take them for patterns",
                )
        self._store = None if self.is_local else from_url(self.uri, config=self.options or None)  # type: ignore[arg-type]

    @property
    def _objects(self) -> obstore.store.ObjectStore:
        if self._store is None:
            self._store = LocalStore(self.path, mkdir=True)
        return self._store

    def uri_of(self, path: str) -> str:
        """Return the absolute address of ``path``."""
        return f"{self.uri}/{path}"

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write an object, replacing any other of that name, whole or not at all."""
        with storage_errors(f"write {self.uri_of(path)}"):
            if self.is_local:
                self._put_local(path, data)
            else:
                obstore.put(self._objects, path, data, use_multipart=False)

    def _put_local(self, path: str, data: bytes | memoryview) -> None:
        """Stage under ``NAME#N``, which no reader takes for a file, then rename."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f"{target.name}#{secrets.token_hex(4)}")
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
        self._sync_folder(target.parent)

    def _sync_folder(self, folder: Path) -> None:
        if self._fsync:
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless one of that name exists; tell whether it was written."""
        with storage_errors(f"create {self.uri_of(path)}"):
            try:
                obstore.put(self._objects, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            self.sync(path)
            return True

    def get(self, path: str) -> bytes | None:
        """Return the bytes of an object, or None where there is none."""
        with storage_errors(f"read {self.uri_of(path)}"):
            if self.is_local and not self.path.is_dir():
                return None
            try:
                return bytes(obstore.get(self._objects, path).bytes())
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        """Return the size of an object in bytes, or None where there is none."""
        with storage_errors(f"read {self.uri_of(path)}"):
            if self.is_local:
                target = self.path / path
                return target.stat().st_size if target.is_file() else None
            try:
                return int(obstore.head(self._objects, path)["size"])
            except FileNotFoundError:
                return None

    def tail(self, path: str, size: int, count: int) -> bytes:
        """Return the last ``count`` bytes of an object of ``size`` bytes."""
        with storage_errors(f"read {self.uri_of(path)}"):
            start = max(0, size - count)
            found = obstore.get_range(self._objects, path, start=start, end=size)
            return bytes(found)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return every object below ``prefix`` with its size in bytes."""
        return {path: listed.size for path, listed in self.listing(prefix).items()}

    def listing(self, prefix: str) -> dict[str, Listed]:
        """Return every object below ``prefix`` with its size and the store's time of it.

        Of what a local store has staged (``NAME#N``) some is among them and some is not:
        ``leftovers`` finds it all.
        """
        with storage_errors(f"list {self.uri_of(prefix)}"):
            if self.is_local and not (self.path / prefix).is_dir():
                return {}
            batches = obstore.list(self._objects, prefix)
            return {
                meta["path"]: Listed(int(meta["size"]), meta["last_modified"])
                for batch in batches
                for meta in batch
            }

    def delete(self, path: str) -> None:
        """Delete an object; none of that name is no error."""
        with storage_errors(f"delete {self.uri_of(path)}"):
            try:
                obstore.delete(self._objects, path)
            except FileNotFoundError:
                return

    def delete_unless_newer(self, path: str, modified: datetime) -> bool:
        """Delete an object that was last written at ``modified``; tell whether that was done.

        Files are named by content, so a writer may be storing the very file that somebody is
        deleting. In a folder the file is first moved aside and then looked at, which is free
        of races. A bucket is asked right before the request to delete.
        """
        with storage_errors(f"delete {self.uri_of(path)}"):
            if self.is_local:
                return self._delete_local(path, modified)
            try:
                if obstore.head(self._objects, path)["last_modified"] > modified:
                    return False
                obstore.delete(self._objects, path)
            except FileNotFoundError:
                return False
            return True

    def _delete_local(self, path: str, modified: datetime) -> bool:
        target = self.path / path
        aside = target.with_name(f"{target.name}#{secrets.token_hex(4)}")
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
        """Return what a local store staged (``NAME#N``) and did not finish, or is staging."""
        if not self.is_local:
            return {}
        found = {}
        with storage_errors(f"list {self.uri}"):
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
        """Force a local file and its folder to disk, where the lake asks for that."""
        if not self._fsync:
            return
        handle = os.open(self.path / path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self._sync_folder((self.path / path).parent)


def _modified(told: os.stat_result) -> datetime:
    return from_micros(told.st_mtime_ns // 1_000)


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system or the object store raises into a named error."""
    try:
        yield
    except (OSError, BaseError) as error:
        raise unavailable(doing, error) from error


def unavailable(doing: str, error: Exception) -> StoreUnavailableError:
    """Return the named error for a failure of the store."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number is None:
        folded = text.casefold()
        number = next((code for sign, code in _SIGNS.items() if sign in folded), None)
    why = os.strerror(number) if number else text.splitlines()[0][:300]
    return StoreUnavailableError(
        f"Cannot {doing}: {why}",
        remedy=_REMEDIES.get(number or 0, "Check that the store is there and reachable"),
        doing=doing,
    )
