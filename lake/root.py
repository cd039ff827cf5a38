"""lake.json: what a lake says of itself, and the refusal to mix what must not mix."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from contracts.errors import (
    LakeFormatError,
    LakeNotFoundError,
    LakeOriginError,
    SettingsError,
)
from contracts.response import canonical_json

if TYPE_CHECKING:
    from lake.store import Store

FORMAT = 1
LIVE = "live"
SNAPSHOTS = "snapshots"
_NAME = "lake.json"


@dataclass(frozen=True, slots=True)
class LakeInfo:
    """What lake.json says.

    Attributes:
        format_version: Layout of the lake; raised when older code could misread it.
        lake_id: Identity of the lake, random.
        origin: ``live``, or ``replay:<sha256>`` of the tape that feeds it.
        probed: In a bucket: what the probe asked before the first write; see ``lake.probe``.
        holds: ``snapshots`` for an export, which has no newest state; None for a lake.
    """

    format_version: int
    lake_id: str
    origin: str
    probed: str | None = None
    holds: str | None = None


def init_lake(store: Store, *, origin: str) -> LakeInfo:
    """Make ``store`` a lake of that origin, unless it is one already.

    A bucket is probed before the first write: it must not lose commits.

    Raises:
        LakeOriginError: It is a lake of another origin.
        SettingsError: It is an export of snapshots.
        UnsafeStoreError: The bucket does not keep conditional writes apart.
    """
    if store.is_local or store.get(_NAME) is None:
        info = LakeInfo(FORMAT, uuid.uuid4().hex, origin, _probed(store))
        _write(store, info)
    found = writable_lake(store)
    if found.origin != origin:
        raise LakeOriginError(
            f"The lake at {store.uri} holds data of origin {found.origin}, not {origin}",
            remedy="Use another --root: recorded, generated and live data never mix",
            origin=found.origin,
            asked=origin,
        )
    return found


def writable_lake(store: Store) -> LakeInfo:
    """Return what a lake says of itself, if it is one that is written to.

    Raises:
        LakeNotFoundError: There is no lake.
        SettingsError: It is an export of snapshots.
    """
    found = read_lake(store)
    if found.holds is not None:
        raise SettingsError(
            f"{store.uri} holds exported snapshots only, and nothing is written to it",
            remedy="Use another --root",
        )
    return found


def _probed(store: Store) -> str | None:
    if store.is_local:
        return None
    from lake.probe import SHORT, probe

    return str(probe(store, sizes=SHORT))


def init_export(store: Store, info: LakeInfo) -> None:
    """Make ``store`` a place for snapshots of a lake, unless it is one already."""
    _write(store, LakeInfo(FORMAT, info.lake_id, info.origin, holds=SNAPSHOTS))


def _write(store: Store, info: LakeInfo) -> None:
    told = {name: value for name, value in asdict(info).items() if value is not None}
    store.create(_NAME, canonical_json(told).encode())


def read_lake(store: Store) -> LakeInfo:
    """Return what lake.json says.

    Raises:
        LakeNotFoundError: There is no lake here.
        LakeFormatError: It was written by a newer Tidemark, or lake.json is broken.
    """
    content = store.get(_NAME)
    if content is None:
        raise LakeNotFoundError(
            f"There is no lake at {store.uri}",
            remedy="Name it with --root or LAKE_ROOT, or make one with `lake init`",
            root=store.uri,
        )
    try:
        told = json.loads(content)
        version = int(told["format_version"])
        probed = told.get("probed")
        lake_id, origin = str(told["lake_id"]), str(told["origin"])
        info = LakeInfo(version, lake_id, origin, probed, told.get("holds"))
    except (ValueError, KeyError, TypeError) as error:
        raise LakeFormatError(
            f"{store.uri_of(_NAME)} is not readable",
            remedy="Restore lake.json from a copy",
        ) from error
    if version > FORMAT:
        raise LakeFormatError(
            f"The lake at {store.uri} has format {version}; this Tidemark knows {FORMAT}",
            remedy="Upgrade Tidemark",
            format_version=version,
        )
    return info
