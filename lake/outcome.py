"""What became of a commit whose answer was an error: it may have been stored all the same.

The log itself tells. A commit carries an id of its own, and it can only stand behind the
version that it was planned from, so the commits from there on are read, no others.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from contracts.errors import StoreUnavailableError
from lake.logs import log_path

if TYPE_CHECKING:
    from lake.store import Store

STORED_NOT = "not stored"
UNKNOWN = "unknown"
_WAIT_SECONDS = 30.0
_PAUSE = 0.5


def version_of(store: Store, table_path: str, *, after: int, commit_id: str) -> int | None:
    """Return the version behind ``after`` that carries a commit's id, or None.

    While a bucket cannot be asked, nobody knows: it is asked again for half a minute.

    Raises:
        StoreUnavailableError: The store stayed away; ``outcome`` is ``unknown``.
    """
    give_up = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return _search(store, table_path, after, commit_id.encode())
        except StoreUnavailableError as error:
            if store.is_local or time.monotonic() > give_up:
                raise StoreUnavailableError(
                    f"Whether a commit to {store.uri_of(table_path)} was stored is not known: "
                    f"{error.message}",
                    remedy="Run again when the store is there; nothing will be doubled",
                    commit_id=commit_id,
                    outcome=UNKNOWN,
                ) from error
        time.sleep(_PAUSE)


def _search(store: Store, table_path: str, after: int, wanted: bytes) -> int | None:
    for version in itertools.count(after + 1):
        commit = store.get(log_path(table_path, version))
        if commit is None:
            return None
        if wanted in commit:
            return version
    return None
