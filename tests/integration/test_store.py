"""The store's few verbs on a local folder."""

from __future__ import annotations

import os

import pytest

from contracts.errors import StoreUnavailableError
from lake.store import Store


@pytest.fixture(params=[True, False], ids=["fsync", "no fsync"])
def store(request, tmp_path):
    return Store(tmp_path / "root", fsync=request.param)


def test_what_is_put_is_read(store):
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two!")
    assert store.get("a/b.json") == b"two!"
    assert store.size("a/b.json") == 4
    assert store.tail("a/b.json", 4, 2) == b"o!"
    assert store.tail("a/b.json", 4, 99) == b"two!"
    assert store.sizes("a") == {"a/b.json": 4}
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert store.get("a/b.json") is None


def test_nothing_is_where_nothing_was_put(store):
    assert store.get("x") is None
    assert store.size("x") is None
    assert store.sizes("x") == {}
    assert not store.path.exists()


def test_create_writes_once(store):
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.get("a") == b"first"


def test_a_failed_read_names_the_file(store):
    store.put("a", b"")
    with pytest.raises(StoreUnavailableError, match=r"Cannot read .*/gone"):
        store.tail("gone", 4, 2)
    if os.geteuid():
        (store.path / "a").chmod(0)
        with pytest.raises(StoreUnavailableError, match="Permission denied"):
            store.get("a")


def test_addresses(tmp_path):
    store = Store(f"file://{tmp_path}/root")
    assert (store.is_local, store.uri) == (True, f"{tmp_path}/root")
    assert store.uri_of("a/b") == f"{tmp_path}/root/a/b"
    bucket = Store("s3://bucket/prefix/", options={"AWS_REGION": "eu-central-1"})
    assert (bucket.is_local, bucket.uri_of("a")) == (False, "s3://bucket/prefix/a")
