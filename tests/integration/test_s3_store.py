"""The store's verbs, its errors and its probe, on a real S3 server and through a bad network."""

from __future__ import annotations

import socket
import time

import polars as pl
import pytest
from kernel_support import Kernel, series
from s3_proxy import FaultyGateway
from s3_support import KEY, SECRET
from test_store import (
    test_create_writes_once,
    test_what_is_put_is_read,
)

from contracts.errors import (
    CredentialsError,
    LakeNotFoundError,
    SettingsError,
    StoreUnavailableError,
    UnsafeStoreError,
)
from contracts.tables import BARS
from lake import open as open_lake
from lake.probe import SHORT, probe
from lake.root import init_lake, read_lake
from lake.store import Store
from lake.store_options import bucket_options

__all__ = [
    "test_create_writes_once",
    "test_what_is_put_is_read",
]
QUICK = {"retry_timeout": "2s", "connect_timeout": "1s", "timeout": "2s"}


@pytest.fixture
def store(s3_root):
    return Store(s3_root)


@pytest.fixture
def gateway(ceph, s3_root, monkeypatch):  # noqa: ARG001 - the proxy comes after the environment
    """A proxy that every library is pointed at."""
    with FaultyGateway(ceph.url, key=(KEY, SECRET)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def test_nothing_is_where_nothing_was_put_in_a_bucket(store):
    assert store.get("x") is None
    assert store.size("x") is None
    assert store.sizes("x") == {}
    store.delete("x")


def test_an_object_of_many_parts_is_whole(store):
    data = bytes(range(256)) * (160 << 10)
    store.put("large", data)
    assert store.size("large") == len(data)
    assert store.get("large") == data


def test_a_listing_tells_sizes_and_times(store):
    for name in ("a/1", "a/2", "b/1"):
        store.put(name, name.encode() * 3)
    assert store.sizes("a") == {"a/1": 9, "a/2": 9}
    told = store.listing("a")["a/1"].modified
    assert not store.delete_unless_newer("a/1", told.replace(year=2020))
    assert store.delete_unless_newer("a/1", told)
    assert store.leftovers() == {}
    assert store.sizes("a") == {"a/2": 9}


@pytest.mark.parametrize("fault", ["error_before", "error_after", "reset_before", "reset_after"])
def test_a_create_whose_answer_is_lost_is_found_out(gateway, s3_root, fault):
    """Whoever wrote the object is told so, though the server was asked again."""
    store = Store(s3_root)
    gateway.inject(fault, method="PUT")
    assert store.create("mine", b"mine")
    assert store.get("mine") == b"mine"
    gateway.inject(fault, method="PUT")
    assert not store.create("mine", b"other")
    assert store.get("mine") == b"mine"
    assert [seen.fault for seen in gateway.log].count(fault) == 2


def test_a_create_that_is_refused_without_a_rival_is_tried_again(gateway, s3_root):
    gateway.inject("conflict", method="PUT")
    assert Store(s3_root).create("mine", b"mine")


def test_objects_that_do_not_say_who_wrote_them_are_somebody_elses(store):
    store.put("theirs", b"theirs")
    assert not store.create("theirs", b"mine")


CREDENTIALS = {
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know the access key"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "hush-hush"}, "secret does not belong"),
    "half a key": ({"AWS_SECRET_ACCESS_KEY": ""}, "not the other half"),
    "none": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_credentials_that_do_not_fit_are_named(s3_root, monkeypatch, tmp_path, case):
    Kernel(s3_root).publish(series(range(3)))
    changed, told = CREDENTIALS[case]
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    for call in (
        lambda: open_lake(s3_root),
        lambda: init_lake(Store(s3_root), origin="live"),
        lambda: Store(s3_root).sizes(""),
        lambda: Store(s3_root).put("a", b""),
    ):
        with pytest.raises(CredentialsError, match=told) as error:
            call()
        assert error.value.remedy
        assert_no_secret(error.value)
    assert time.monotonic() - began < 10


def assert_no_secret(error):
    said = f"{error}{error.context}{error.__cause__}"
    for secret in (SECRET, "hush-hush"):
        assert secret not in said


def test_credentials_that_expire_in_the_middle_are_named_and_renewed(gateway, s3_root):
    kernel = Kernel(s3_root)
    kernel.publish(series(range(3)))
    lk = kernel.lake()
    for times in (1, 2, 3, 5, 8):
        gateway.inject("expired", skip=times, times=10_000)
        with pytest.raises(CredentialsError, match="expired") as error:
            kernel.publish(series(range(10 * times, 10 * times + 2)))
        assert_no_secret(error.value)
        assert error.value.__suppress_context__
        gateway.clear()
    gateway.inject("expired", times=10_000)
    with pytest.raises(CredentialsError, match="expired"):
        Kernel(s3_root)
    with pytest.raises(CredentialsError):
        lk.ledger()
    gateway.clear()
    rows = Kernel(s3_root).rows(BARS)
    assert rows.select("instrument_id", "open_time").is_unique().all()


def test_keys_of_a_profile_reach_all_libraries(s3_root, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    told = f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(f"[lakes]\n{told}")
    (tmp_path / "config").write_text("[profile lakes]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lakes")
    kernel = Kernel(s3_root)
    assert "AWS_SECRET_ACCESS_KEY" not in kernel.store.options
    kernel.publish(series(range(3)))
    assert kernel.lake().bars("*", timeframe="1m").collect().height == 3
    monkeypatch.setenv("AWS_PROFILE", "others")
    with pytest.raises(CredentialsError, match="others"):
        Kernel(s3_root)


def test_what_is_passed_wins_over_the_environment(s3_root, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another key")
    given = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    init_lake(Store(s3_root, options=given), origin="live")
    assert open_lake(s3_root, storage_options=given).info.origin == "live"


def test_a_missing_bucket_is_named(s3_root):
    for call in (
        lambda: open_lake("s3://no-such-bucket-here/lake"),
        lambda: init_lake(Store("s3://no-such-bucket-here/lake"), origin="live"),
        lambda: Store("s3://no-such-bucket-here/lake").sizes(""),
        lambda: Store("s3://no-such-bucket-here/lake").put("a", b"1"),
    ):
        with pytest.raises(LakeNotFoundError, match=r"no such bucket\. Create it"):
            call()
    with pytest.raises(LakeNotFoundError, match="no lake at"):
        open_lake(s3_root)


def test_an_endpoint_that_nobody_serves_is_named_in_seconds(s3_root, monkeypatch):
    kernel = Kernel(s3_root)
    kernel.publish(series(range(3)))
    lk, view = kernel.lake(), kernel.tables[BARS.name].head()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="Cannot read") as error:
        open_lake(s3_root)
    assert error.value.retryable
    assert time.monotonic() - began < 20
    with pytest.raises(StoreUnavailableError):
        Store(s3_root, options=QUICK).put("a", b"1")
    assert lk.info.origin == "live"
    assert view.files


def test_an_endpoint_that_never_answers_is_named(s3_root, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and nobody accepts
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            Store(s3_root, options=QUICK).get("a")
        assert time.monotonic() - began < 10


def test_settings_that_cannot_be_are_refused():
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(SettingsError, match="not encrypted"):
        bucket_options({**given, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, {})
    with pytest.raises(SettingsError, match="timeout"):
        bucket_options({**given, "timeout": "soon"}, {})
    with pytest.raises(UnsafeStoreError, match="AWS_S3_ALLOW_UNSAFE_RENAME"):
        bucket_options(given, {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"})
    with pytest.raises(UnsafeStoreError, match="AWS_CONDITIONAL_PUT"):
        bucket_options({**given, "conditional_put": "disabled"}, {})
    with pytest.raises(SettingsError, match="neither a folder nor a bucket"):
        Store("ftp://host/lake")
    options = bucket_options(given, {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t"})
    assert options.shared["AWS_REGION"] == "eu-west-1"
    assert "AWS_SESSION_TOKEN" not in options.shared
    assert "'b'" not in repr(options)


def test_a_sound_store_passes_the_probe_and_keeps_nothing_of_it(any_root):
    store, told = Store(any_root), []
    done = probe(store, on_progress=lambda *step: told.append(step))
    assert (done.writers, done.keys, done.largest) == (8, 51, 9 << 20)
    assert told[-1] == (51, 51)
    assert store.sizes("") == {}


def test_a_store_that_ignores_the_condition_is_refused(gateway, s3_root, monkeypatch):
    monkeypatch.setattr("lake.probe.SHORT", SHORT)
    gateway.strip = ("if-none-match",)
    with pytest.raises(UnsafeStoreError, match=r"loses commits.*were told") as error:
        init_lake(Store(s3_root), origin="live")
    assert "docs/operations.md" in error.value.remedy
    assert Store(s3_root).sizes("") == {}
    with pytest.raises(UnsafeStoreError):
        probe(Store(s3_root), sizes=SHORT)


def test_a_bucket_is_probed_once_before_its_first_write(gateway, s3_root, monkeypatch):
    monkeypatch.setattr("lake.probe.SHORT", SHORT)
    made = init_lake(Store(s3_root), origin="live")
    assert made.probed is not None
    assert made.probed == "8 writers, 27 keys, up to 1048576 bytes"
    probed = gateway.counts["PUT probes"]
    assert probed == 9 * 27
    assert init_lake(Store(s3_root), origin="live") == made == read_lake(Store(s3_root))
    assert gateway.counts["PUT probes"] == probed


def test_bars_that_cannot_be_read_are_an_error_of_the_store(gateway, s3_root):
    kernel = Kernel(s3_root)
    kernel.publish(series(range(3)))
    gateway.inject("expired", kind="data", times=10_000)
    with pytest.raises(CredentialsError):
        kernel.rows(BARS)
    gateway.clear()
    assert isinstance(kernel.rows(BARS), pl.DataFrame)
