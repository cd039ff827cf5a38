"""The store under a lake: a local folder or a bucket, reached through one small surface.

Plain objects (manifests, leases, data files) are put, read and listed here; Delta commits
go through ``lake.tables``. Paths are relative to the lake's root and use ``/``.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from contracts.errors import SettingsError, StoreUnavailableError
from lake.store_errors import is_missing_bucket, is_refusal, raise_store_error, store_error
from lake.store_folder import Folder, Listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from lake.store_options import BucketOptions

__all__ = ["Listed", "Store", "raise_store_error", "storage_errors"]

_WRITER = "tidemark-writer"
_CREATES = 3
_ONE_PUT = 16 << 20
_PART = 8 << 20


class Store:
    """Objects below one root.

    Args:
        root: A folder, or ``s3://bucket/prefix``.
        options: Object-store options in the spelling of delta-rs, for instance
            ``AWS_ENDPOINT_URL``; the environment is read where they are silent.
        fsync: Whether local files are forced to disk before they count as written.

    A bucket is first reached by the first operation, which raises ``CredentialsError``
    where there are no credentials, ``LakeNotFoundError`` where there is no such bucket and
    ``StoreUnavailableError`` where nobody answers within seconds.

    Raises:
        SettingsError: The root holds a character that partition paths cannot live with, or
            is of a kind that is not supported.
    """

    def __init__(
        self, root: str | Path, *, options: Mapping[str, str] | None = None, fsync: bool = True
    ) -> None:
        text = str(root)
        self.is_local = "://" not in text or text.startswith("file://")
        self._given = dict(options or {})
        if self.is_local:
            self.path = Path(text.removeprefix("file://")).expanduser().absolute()
            self.uri = str(self.path)
            self._folder = Folder(self.path, fsync=fsync)
        else:
            self.uri = text.rstrip("/")
            if not self.uri.startswith("s3://"):
                raise SettingsError(
                    f"The lake's root {self.uri!r} is neither a folder nor a bucket",
                    remedy="Name a folder or s3://bucket/prefix",
                )
        for sign in "=*?[#%":
            if sign in self.uri:
                raise SettingsError(
                    f"The lake's root {self.uri!r} holds {sign!r}",
                    remedy="Choose a path without = * ? [ # %: readers take them for patterns",
                )

    @cached_property
    def _bucket(self) -> BucketOptions:
        from lake.store_options import bucket_options

        return bucket_options(self._given)

    @cached_property
    def options(self) -> dict[str, str]:
        """The ``storage_options`` of delta-rs; empty for a folder."""
        return {} if self.is_local else self._bucket.for_delta()

    @property
    def scan_options(self) -> dict[str, Any]:
        """The ``storage_options`` of Polars for one scan; empty for a folder."""
        return {} if self.is_local else self._bucket.for_polars()

    @cached_property
    def _objects(self) -> obstore.store.ObjectStore:
        if self.is_local:
            return LocalStore(self.path, mkdir=True)
        provider = None
        if self._bucket.session is not None:
            from obstore.auth.boto3 import Boto3CredentialProvider

            provider = Boto3CredentialProvider(self._bucket.session)
        return from_url(self.uri, credential_provider=provider, **self._bucket.for_obstore())

    def uri_of(self, path: str) -> str:
        """Return the absolute address of ``path``."""
        return f"{self.uri}/{path}"

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write an object, replacing any other of that name, whole or not at all."""
        with storage_errors(f"write {self.uri_of(path)}"):
            if self.is_local:
                self._folder.put(path, data)
            else:
                large = len(data) > _ONE_PUT
                obstore.put(self._objects, path, data, use_multipart=large, chunk_size=_PART)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless one of that name exists; tell whether it was written."""
        with storage_errors(f"create {self.uri_of(path)}"):
            if not self.is_local:
                return self._create_in_bucket(path, data)
            try:
                obstore.put(self._objects, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            self.sync(path)
            return True

    def _create_in_bucket(self, path: str, data: bytes) -> bool:
        """Create an object that names its writer, so that a lost answer can be found out.

        A request may have been done though its answer never came; whoever then finds the
        object asks whose it is.
        """
        writer = secrets.token_hex(16)
        for attempt in range(1, _CREATES + 1):
            try:
                obstore.put(
                    self._objects,
                    path,
                    data,
                    mode="create",
                    use_multipart=False,
                    attributes={_WRITER: writer},
                )
            except AlreadyExistsError:
                found = self._writer_of(path)
                if found is not None:
                    return found == writer
            except (OSError, BaseError) as error:
                passing = isinstance(store_error("create", error), StoreUnavailableError)
                if attempt == _CREATES or not passing:
                    raise
                found = self._writer_of(path)
                if found is not None:
                    return found == writer
            else:
                return True
        return False

    def _writer_of(self, path: str) -> str | None:
        """Return who created an object, empty where it does not say; None: there is none."""
        try:
            found = obstore.get(self._objects, path, options={"head": True})
        except FileNotFoundError:
            return None
        return str(found.attributes.get(_WRITER, ""))

    def get(self, path: str) -> bytes | None:
        """Return the bytes of an object, or None where there is none."""
        with storage_errors(f"read {self.uri_of(path)}"):
            if self.is_local and not self.path.is_dir():
                return None
            try:
                return bytes(obstore.get(self._objects, path).bytes())
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return None

    def size(self, path: str) -> int | None:
        """Return the size of an object in bytes, or None where there is none."""
        with storage_errors(f"read {self.uri_of(path)}"):
            if self.is_local:
                return self._folder.size(path)
            try:
                return int(self._head(path)["size"])
            except FileNotFoundError:
                return None

    def sizes_of(self, paths: Sequence[str], *, below: str) -> list[int | None]:
        """Return the size of each of many objects below a prefix, None where there is none.

        A folder is asked for each, a bucket for a listing.
        """
        with storage_errors(f"read {self.uri_of(below)}"):
            if self.is_local:
                return [self._folder.size(path) for path in paths]
        listed = self.sizes(below)
        return [listed.get(path) for path in paths]

    def _head(self, path: str) -> Any:
        """Return what a bucket says of an object; a refusal has a reason only in a body."""
        try:
            return obstore.head(self._objects, path)
        except BaseError as error:
            if is_refusal(error):
                obstore.get(self._objects, path, options={"range": (0, 1)})
            raise

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
                return self._folder.delete_unless_newer(path, modified)
            try:
                if self._head(path)["last_modified"] > modified:
                    return False
                obstore.delete(self._objects, path)
            except FileNotFoundError:
                return False
            return True

    def leftovers(self) -> dict[str, Listed]:
        """Return what a local store staged (``NAME#N``) and did not finish, or is staging."""
        if not self.is_local:
            return {}
        with storage_errors(f"list {self.uri}"):
            return self._folder.leftovers()

    def sync(self, path: str) -> None:
        """Force a local file and its folder to disk, where the lake asks for that."""
        if self.is_local:
            self._folder.sync(path)


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system or the object store raises into a named error."""
    try:
        yield
    except (OSError, BaseError) as error:
        raise_store_error(doing, error)
