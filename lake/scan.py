"""From a list of files to a LazyFrame, without asking the Delta log.

Heads and snapshots read through here alike: what differs is only who says which files
there are.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl

from lake.store import raise_store_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contracts.spec import TableSpec
    from lake.parts import FileEntry
    from lake.store import Store


def scan_files(store: Store, spec: TableSpec, files: Iterable[FileEntry]) -> pl.LazyFrame:
    """Return the rows of some files of a table, partition columns included.

    Shape: the table's columns in their declared order; rows file by file in the given
    order within a partition, partitions in the order of their first file.
    """
    names = spec.schema.names()
    frames = [
        pl.scan_parquet(
            [store.uri_of(f"{spec.path}/{entry.path}") for entry in members],
            schema=spec.file_schema,
            glob=False,
            hive_partitioning=False,
            storage_options=store.scan_options or None,
        )
        .with_columns(
            pl.lit(value, spec.by_name[name].dtype).alias(name)
            for name, value in members[0].partition.items()
        )
        .select(names)
        for members in _by_partition(files)
    ]
    if not frames:
        return spec.empty().lazy()
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical")


def _by_partition(files: Iterable[FileEntry]) -> list[list[FileEntry]]:
    grouped = groupby(files, key=lambda entry: tuple(entry.partition.items()))
    merged: dict[tuple[tuple[str, object], ...], list[FileEntry]] = {}
    for key, members in grouped:
        merged.setdefault(key, []).extend(members)
    return list(merged.values())


def read_files(store: Store, spec: TableSpec, files: Sequence[FileEntry]) -> pl.DataFrame:
    """Return all rows of some files, eagerly."""
    return collect_files(store, spec, files, scan_files(store, spec, files))


def collect_files(
    store: Store, spec: TableSpec, files: Iterable[FileEntry], rows: pl.LazyFrame
) -> pl.DataFrame:
    """Return ``rows``, which come from ``files``; where that fails name the file at fault.

    Raises:
        SnapshotIncompleteError: A file is missing.
        ChecksumError: A file is not what was written.
        StoreUnavailableError: The files are sound, but could not be read.
    """
    from lake.verify import check_files

    try:
        return rows.collect()
    except (OSError, pl.exceptions.ComputeError) as error:
        check_files(store, spec, list(files), hashed=True)
        raise_store_error(f"read {store.uri_of(spec.path)}", error)
