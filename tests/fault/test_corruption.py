"""Torn logs, missing and broken files: each is named, and no error is a library's own."""

from __future__ import annotations

import errno
import json

import pytest
from kernel_support import BTC, KNOWN, Kernel, Row, response_of, series

from contracts.errors import (
    ChecksumError,
    InvariantError,
    SnapshotIncompleteError,
    StorageError,
    StoreUnavailableError,
    TornLogError,
)
from contracts.names import Venue
from contracts.tables import BARS, LEDGER, RESPONSES
from lake.landing import landed
from lake.parts import read_row_hash
from lake.verify import verify


@pytest.fixture
def kernel(tmp_path):
    made = Kernel(tmp_path / "lake")
    made.publish(series(range(10)))
    made.observe(0, 10)
    made.step(hours=1)
    made.publish([Row(3, 200.0)])
    return made


def reopened(kernel):
    """Return the lake as another process opens it."""
    return Kernel(kernel.root, known=kernel.clock.known())


def assert_readable(error):
    """Check that an error is one line that says what to do."""
    text = str(error.value)
    assert "\n" not in text
    assert error.value.remedy
    assert len(text) < 500


TORN = {
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "zero-filled": lambda content: bytes(len(content)),
    "overwritten": lambda _: b"garbage\n",
}


@pytest.mark.parametrize("how", sorted(TORN))
def test_a_torn_newest_commit_stops_reads_and_writes(kernel, how):
    log = kernel.log_of(BARS, kernel.tables[BARS.name].head().version)
    log.write_bytes(TORN[how](log.read_bytes()))
    for work in (
        lambda: reopened(kernel).lake().bars(BTC, timeframe="1m").collect(),
        lambda: reopened(kernel).publish([Row(3, 300.0)]),
        lambda: reopened(kernel).snapshot(),
    ):
        with pytest.raises(TornLogError) as error:
            work()
        assert_readable(error)
        assert "Move" in error.value.remedy


def test_a_writer_that_is_already_open_meets_an_empty_commit(kernel):
    view = kernel.tables[BARS.name].head()
    kernel.log_of(BARS, view.version + 1).write_bytes(b"")
    with pytest.raises(TornLogError, match=f"Commit {view.version + 1} "):
        kernel.publish([Row(5, 300.0)])


def test_the_cure_that_the_error_names_works(kernel):
    before = kernel.lake().bars(BTC, timeframe="1m").collect()
    version = kernel.tables[BARS.name].head().version
    log = kernel.log_of(BARS, version)
    log.write_bytes(b"")
    log.rename(log.with_suffix(".torn"))
    cured = reopened(kernel)
    cured.publish([Row(3, 200.0)])
    assert cured.lake().bars(BTC, timeframe="1m").collect().equals(before)


def test_a_missing_commit_in_the_middle_is_not_to_be_moved_away(kernel):
    kernel.log_of(BARS, 1).unlink()
    with pytest.raises(TornLogError) as error:
        reopened(kernel).lake().bars(BTC, timeframe="1m")
    assert_readable(error)
    assert "from a copy" in error.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "Generic S3 error: GET http://127.0.0.1:1/b/_delta_log/00000000000000000003.json: timeout",
        "Permission denied (os error 13): /lake/_delta_log/00000000000000000003.json",
    ],
)
def test_a_store_out_of_reach_is_no_torn_log(kernel, text):
    with pytest.raises(StoreUnavailableError) as error:
        kernel.tables[BARS.name]._raise_unreadable(OSError(text))
    assert "Move" not in error.value.remedy


BROKEN = {
    "deleted": (lambda path: path.unlink(), SnapshotIncompleteError),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), ChecksumError),
}


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_broken_file_is_named_by_heads_writes_and_snapshots(kernel, how):
    path = kernel.file_of(BARS)
    breaking, expected = BROKEN[how]
    breaking(path)
    for work in (
        lambda: kernel.lake().bars(BTC, timeframe="1m"),
        lambda: kernel.lake().scan("silver.bars"),
        lambda: kernel.publish([Row(3, 300.0)]),
    ):
        with pytest.raises(expected, match=path.name) as error:
            work()
        assert_readable(error)
    with pytest.raises(SnapshotIncompleteError, match=path.name):
        kernel.snapshot()
    assert not list((kernel.root / "snapshots").glob("*.json"))
    assert not list((kernel.root / "leases").glob("*.json"))


def test_a_broken_ledger_file_is_named_by_whoever_needs_it(kernel):
    pinned = kernel.snapshot().snapshot_id
    path = kernel.file_of(LEDGER)
    path.unlink()
    for work in (
        lambda: kernel.lake(snapshot=pinned).ledger(),
        lambda: kernel.lake(snapshot=pinned).bars("XRP-USDT-SPOT.BINANCE", timeframe="1m"),
        lambda: kernel.lake().bars("*", timeframe="1m"),
        lambda: kernel.observe(0, 20),
    ):
        with pytest.raises(SnapshotIncompleteError, match=path.name):
            work()


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def swap(kernel, path):
    other = kernel.root / "other.parquet"
    path.rename(other)
    other.rename(path.with_name("part-" + "0" * 64 + ".parquet"))
    path.write_bytes(path.with_name("part-" + "0" * 64 + ".parquet").read_bytes()[::-1])


PINNED_FAULTS = {
    "flipped": lambda _, path: flip(path, path.stat().st_size // 3),
    "swapped": swap,
    "truncated": lambda _, path: path.write_bytes(path.read_bytes()[:-1]),
    "deleted": lambda _, path: path.unlink(),
}


@pytest.mark.parametrize("how", sorted(PINNED_FAULTS))
def test_every_fault_of_a_pinned_file_is_found_and_named(kernel, how):
    manifest = kernel.snapshot()
    path = kernel.file_of(BARS)
    PINNED_FAULTS[how](kernel, path)
    for work in (
        lambda: verify(kernel.store, manifest),
        lambda: kernel.lake(snapshot=manifest.snapshot_id, verify=True).bars(BTC, timeframe="1m"),
    ):
        with pytest.raises(StorageError, match=path.name) as error:
            work()
        assert_readable(error)
        assert isinstance(
            error.value, SnapshotIncompleteError if how == "deleted" else ChecksumError
        )
    if how in ("truncated", "deleted"):
        with pytest.raises(StorageError, match=path.name):
            verify(kernel.store, manifest, level="quick")
    else:
        assert verify(kernel.store, manifest, level="quick").files == 3


def test_any_flipped_byte_of_a_small_file_is_found(kernel):
    manifest = kernel.snapshot()
    path = kernel.file_of(BARS)
    for at in range(0, path.stat().st_size, 97):
        flip(path, at)
        with pytest.raises(ChecksumError):
            verify(kernel.store, manifest)
        flip(path, at)
    assert verify(kernel.store, manifest, level="deep").level == "deep"


def test_all_faults_are_listed_not_only_the_first(kernel):
    manifest = kernel.snapshot()
    paths = [kernel.file_of(BARS), kernel.file_of(LEDGER)]
    for path in paths:
        path.unlink()
    with pytest.raises(SnapshotIncompleteError, match="1 more fault") as error:
        verify(kernel.store, manifest)
    assert all(any(path.name in fault for fault in error.value.faults) for path in paths)


def test_rows_that_no_longer_hash_are_found_by_a_deep_look(kernel):
    manifest = kernel.snapshot()
    content = json.loads(json.dumps(manifest.content))
    content["tables"][BARS.name]["logical_hash"] = "0" * 32
    with pytest.raises(ChecksumError, match=r"rows of silver\.bars"):
        verify(kernel.store, type(manifest)("x-1", content, {}), level="deep")


def test_a_footer_that_was_cut_is_named(kernel):
    entry = kernel.tables[BARS.name].head().files[0]
    path = kernel.root / BARS.path / entry.path
    path.write_bytes(bytes(entry.size))
    with pytest.raises(ChecksumError, match=path.name):
        read_row_hash(kernel.store, BARS, entry)


def test_a_landed_body_that_changed_is_found(kernel):
    kernel.land(response_of(b'{"a": 1}'))
    view = kernel.tables[RESPONSES.name].head()
    rows = kernel.rows(RESPONSES).with_columns(payload=RESPONSES.empty()["payload"].extend_constant(
        '{"a": 2}', 1))  # fmt: skip
    rows.drop("venue", "date").write_parquet(kernel.file_of(RESPONSES))
    with pytest.raises(ChecksumError, match="not what was received"):
        landed(kernel.store, view, venue="binance", endpoint="GET /api/v3/klines")


def test_responses_of_two_venues_are_no_landing(kernel):
    other = response_of(b"[]", at=KNOWN)
    object.__setattr__(other, "venue", Venue.OKX)
    with pytest.raises(InvariantError):
        kernel.land(response_of(b"[]"), other)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_has_a_remedy(kernel, monkeypatch, number):
    """The object store's own texts are met by the tests on a full and a read-only disk."""

    def refuse(*_, **__):
        raise OSError(number, "refused")

    before = kernel.versions()
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(StoreUnavailableError) as error:
        kernel.publish([Row(3, 300.0)])
    assert_readable(error)
    monkeypatch.undo()
    assert kernel.versions() == before
