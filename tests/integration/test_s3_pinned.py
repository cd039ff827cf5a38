"""Pinned reads on a real S3 server: the tests of a folder, and what only a bucket can show."""

from __future__ import annotations

import polars as pl
import pytest
from kernel_support import BTC, Kernel, seal_early
from test_snapshots import answers, change_everything, kernel

from contracts.errors import ChecksumError, SnapshotIncompleteError
from contracts.tables import BARS
from lake.manifest import load_manifest
from lake.verify import verify

__all__ = ["kernel"]


@pytest.fixture
def lake_root(s3_root):
    return s3_root


def values(lk):
    """Return answers of every kind by their types and values.

    How Polars lays the bytes of a text out in memory depends on how it arrived.
    """
    return [(schema, pl.read_ipc_stream(content).rows()) for schema, content in answers(lk)]


def test_a_pinned_read_is_equal_after_everything_changed(kernel, monkeypatch):
    pinned = kernel.snapshot()
    before = values(kernel.lake(snapshot=pinned.snapshot_id))
    assert before == values(kernel.lake())
    change_everything(kernel)
    seal_early(monkeypatch, 5, fan_in=2, series=4)
    change_everything(kernel)
    assert values(kernel.lake(snapshot=pinned.snapshot_id, verify=True)) == before
    assert values(kernel.lake()) != before
    assert verify(kernel.store, pinned, level="deep").files
    assert kernel.store.sizes("leases") == {}


def test_a_pinned_read_in_a_bucket_needs_no_delta_log(kernel):
    pinned = kernel.snapshot().snapshot_id
    before = values(kernel.lake(snapshot=pinned))
    change_everything(kernel)
    for path in kernel.store.sizes(""):
        if "/_delta_log/" in path:
            kernel.store.delete(path)
    assert values(kernel.lake(snapshot=pinned, verify=True)) == before
    told = verify(kernel.store, load_manifest(kernel.store, pinned), level="deep")
    assert told.level == "deep"


def test_a_lake_carried_from_a_bucket_to_a_folder_and_back_reads_the_same(
    kernel,
    tmp_path,
    s3_root,
):
    pinned = kernel.snapshot().snapshot_id
    before = values(kernel.lake(snapshot=pinned))
    local = kernel.copy(tmp_path / "local")
    assert values(local.lake(snapshot=pinned, verify=True)) == before
    back = local.copy(f"{s3_root}-back")
    assert values(back.lake(snapshot=pinned, verify=True)) == before
    assert back.snapshot().snapshot_id == pinned


def test_a_file_that_was_changed_or_lost_in_the_bucket_is_found_and_named(kernel):
    manifest = kernel.snapshot()
    entry = kernel.tables[BARS.name].head().files[0]
    path = f"{BARS.path}/{entry.path}"
    body = kernel.store.get(path)
    flipped = bytes([body[100] ^ 1])
    kernel.store.put(path, body[:100] + flipped + body[101:])
    assert verify(kernel.store, manifest, level="quick").files
    with pytest.raises(ChecksumError, match=entry.sha256):
        verify(kernel.store, manifest)
    lk = Kernel(kernel.root).lake(snapshot=manifest.snapshot_id, verify=True)
    with pytest.raises(ChecksumError):
        lk.bars(BTC, timeframe="1m").collect()
    kernel.store.delete(path)
    with pytest.raises(SnapshotIncompleteError, match=entry.sha256):
        verify(kernel.store, manifest, level="quick")
    kernel.store.put(path, body)
    assert verify(kernel.store, manifest, level="deep").files
