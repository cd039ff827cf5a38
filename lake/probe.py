"""Does a store keep conditional writes apart? Asked before a lake is trusted to it.

A commit is a create of an object that must not exist. A store that accepts the condition and
does not keep it loses commits that it acknowledged, silently and only under concurrency: so
several writers create the same fresh keys at the same moment, at several sizes. Each key
must have one winner, and hold the winner's bytes.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import UnsafeStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lake.store import Store

WRITERS = 8
FULL = (*[2 << 10] * 30, *[64 << 10] * 16, *[1 << 20] * 3, 6 << 20, 9 << 20)
SHORT = (*[2 << 10] * 20, *[64 << 10] * 6, 1 << 20)
FOLDER = "probes"
_BLOCK = 1 << 16
_REMEDY = (
    "Use a folder, AWS S3, Ceph, or another store that keeps If-None-Match under concurrency; "
    "docs/operations.md lists them"
)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe asked; the store passed.

    Attributes:
        writers: Concurrent writers of each key.
        keys: Number of fresh keys.
        largest: Bytes of the largest object.
    """

    writers: int
    keys: int
    largest: int

    def __str__(self) -> str:
        return f"{self.writers} writers, {self.keys} keys, up to {self.largest} bytes"


def probe(
    store: Store,
    *,
    sizes: Sequence[int] = FULL,
    writers: int = WRITERS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Probed:
    """Let writers race for fresh keys, and take away what they wrote.

    Args:
        store: The store; objects are made below ``probes/`` and deleted.
        sizes: Bytes of the object of each key, one race per key.
        writers: Writers per key, at the same moment.
        on_progress: Called with keys done and keys in all.

    Raises:
        UnsafeStoreError: A key had no winner or several, or holds another's bytes.
        StoreUnavailableError: The store cannot be reached.
        CredentialsError: The store refuses these credentials.
    """
    folder = f"{FOLDER}/{secrets.token_hex(8)}"
    paths = [f"{folder}/{number:03d}" for number in range(len(sizes))]
    try:
        with ThreadPoolExecutor(writers) as pool:
            for number, (path, size) in enumerate(zip(paths, sizes, strict=True), start=1):
                _race(store, pool, path, size, writers)
                if on_progress is not None:
                    on_progress(number, len(sizes))
    finally:
        for path in store.sizes(folder):
            store.delete(path)
    return Probed(writers, len(sizes), max(sizes))


def _race(store: Store, pool: ThreadPoolExecutor, path: str, size: int, writers: int) -> None:
    bodies = [_body(size) for _ in range(writers)]
    gate = threading.Barrier(writers)

    def create(body: bytes) -> bool:
        gate.wait()
        return store.create(path, body)

    won = list(pool.map(create, bodies))
    if won.count(True) != 1:
        raise _unsafe(store, f"{won.count(True)} of {writers} writers were told that they made it")
    stored = store.get(path)
    if stored is None or _digest(stored) != _digest(bodies[won.index(True)]):
        raise _unsafe(store, "what is stored is not what the one winner wrote")
    if store.create(path, b"late"):
        raise _unsafe(store, "an object that stood was made again")


def _body(size: int) -> bytes:
    """Return bytes unlike any other writer's, cheaply."""
    block = secrets.token_bytes(min(size, _BLOCK))
    return (block * (size // len(block) + 1))[:size]


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _unsafe(store: Store, why: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"The store at {store.uri} loses commits: {why}", remedy=_REMEDY, root=store.uri
    )
