"""The file lake.lock: its form, its identity, and every way in which it can be wrong."""

import json
import pickle

import pytest
from kernel_support import BTC, KNOWN, Kernel, series

from contracts.errors import ChecksumError, LakeFormatError, RequestError, StoreUnavailableError
from contracts.time import SteppedClock
from lake.drift import Change, drifted
from lake.lakehouse import bars_query
from lake.lockfile import make_lock, read_lock, without_secrets, write_lock


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("lock") / "lake")
    kernel.publish(series(range(30)))
    kernel.observe(0, 30)
    return kernel


@pytest.fixture(scope="module")
def manifest(kernel):
    return kernel.snapshot()


def query_of(**more):
    asked = {"timeframe": "1m", "start": "2026-03-24T00:05Z", "end": "2026-03-24T00:15Z"}
    return bars_query(BTC, **(asked | more))


@pytest.fixture
def lock(kernel, manifest):
    queries = {"bars": query_of(columns=["open_time", "close"])}
    clock = SteppedClock(KNOWN)
    return make_lock(kernel.store, manifest, root="../lake", queries=queries, clock=clock)


@pytest.fixture
def path(lock, tmp_path):
    path = tmp_path / "lake.lock"
    write_lock(lock, path)
    return path


def test_a_lock_reads_as_it_was_written(lock, path):
    found = read_lock(path)
    assert found.to_text() == path.read_text() == lock.to_text()
    assert found.lock_id == lock.lock_id
    assert found.queries == lock.queries
    assert (found.queries["bars"].answer.rows, found.path) == (10, path)
    assert sorted(found.tables) == ["ops.ledger", "silver.bars"]
    assert [each.name for each in path.parent.iterdir()] == ["lake.lock"]


def test_the_text_has_one_fact_a_line_in_a_fixed_order(path):
    text = path.read_text()
    told = json.loads(text)
    assert text == json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert list(told) == sorted(told)
    assert told["queries"]["bars"]["start"] == "2026-03-24T00:05:00Z"
    assert set(told["packages"]) == {"deltalake", "polars", "python", "tidemark"}


def test_a_lock_of_the_same_pin_differs_by_its_time_alone(kernel, manifest, lock):
    def again(**more):
        query = query_of(columns=["open_time", "close"], **more)
        queries, clock = {"bars": query}, SteppedClock(KNOWN)
        return make_lock(kernel.store, manifest, root="../lake", queries=queries, clock=clock)

    same, other = again(), again(end="2026-03-24T00:14Z")
    assert same.differences(lock) == []
    assert same.lock_id != lock.lock_id
    assert other.differences(lock) == ["queries"]


def test_a_lock_without_queries_pins_every_table_and_answers_none(kernel, manifest):
    clock = SteppedClock(KNOWN)
    lock = make_lock(kernel.store, manifest, root="lake", queries={}, clock=clock)
    assert set(lock.tables) == set(manifest.tables)
    with pytest.raises(RequestError, match="its queries: none"):
        lock.query()


def test_one_of_several_queries_has_to_be_named(kernel, manifest):
    queries = {"early": query_of(), "late": query_of(start="2026-03-24T00:10Z")}
    clock = SteppedClock(KNOWN)
    lock = make_lock(kernel.store, manifest, root="lake", queries=queries, clock=clock)
    assert lock.query("late").answer.rows == 5
    for name in (None, "never"):
        with pytest.raises(RequestError, match="early, late"):
            lock.query(name)


def test_a_query_without_rows_is_not_locked(kernel, manifest):
    queries = {"bars": query_of(start="2020-01-01", end="2020-01-02")}
    clock = SteppedClock(KNOWN)
    with pytest.raises(RequestError, match="has no rows"):
        make_lock(kernel.store, manifest, root="lake", queries=queries, clock=clock)


def test_a_relative_root_is_seen_from_the_folder_of_the_lock(path, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    assert read_lock(path).where == str(tmp_path.parent / "lake")


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://AKIA:hush@bucket/prefix?token=hush#hush", "s3://bucket/prefix"),
        ("./lake@home", "./lake@home"),
    ],
)
def test_no_secret_of_a_root_is_written(root, told):
    assert without_secrets(root) == told


def test_there_is_no_lock(tmp_path):
    with pytest.raises(RequestError, match="lake lock --snapshot"):
        read_lock(tmp_path / "lake.lock")


def leaves(told, way=()):
    if isinstance(told, dict):
        for name, each in told.items():
            yield from leaves(each, (*way, name))
    elif isinstance(told, list):
        for index, each in enumerate(told):
            yield from leaves(each, (*way, index))
    else:
        yield way, told


def test_every_edit_of_a_value_is_found(path):
    whole = json.loads(path.read_text())
    ways = [way for way, _ in leaves(whole) if way != ("format",)]
    assert len(ways) > 20
    for way in ways:
        edited = json.loads(path.read_text())
        inner = edited
        for name in way[:-1]:
            inner = inner[name]
        value = inner[way[-1]]
        inner[way[-1]] = value + 1 if isinstance(value, int) else f"{value or ''}0"
        path.with_name("edited").write_text(json.dumps(edited))
        with pytest.raises(ChecksumError, match="was edited"):
            read_lock(path.with_name("edited"))


def test_every_key_that_is_left_out_or_added_is_found(path):
    whole = json.loads(path.read_text())
    edited = path.with_name("edited")
    for name in (*whole, "more"):
        told = {**whole, "more": 1} if name == "more" else {k: whole[k] for k in whole if k != name}
        edited.write_text(json.dumps(told))
        with pytest.raises(ChecksumError):
            read_lock(edited)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n",
        b"\xff\xfe\x00",
        b'{"snapshot_id": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_lock_is_told_so(content, tmp_path):
    path = tmp_path / "lake.lock"
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=r"lake\.lock"):
        read_lock(path)


def test_a_key_that_stands_twice_cannot_hide_behind_the_other(path):
    text = path.read_text()
    path.write_text(text.replace("{\n", '{\n  "snapshot_id": "2026-01-01-00000000",\n', 1))
    with pytest.raises(ChecksumError):
        read_lock(path)


def test_an_edit_with_a_hash_to_match_is_still_checked_for_its_form(path):
    from lake.lockfile import _hash

    for name, value in (("tables", []), ("queries", {"bars": {}}), ("created_at", None)):
        told = json.loads(path.read_text())
        del told["lock_id"]
        told = {**told, name: value} if value is not None else {**told, "more": 1}
        path.with_name("edited").write_text(json.dumps({**told, "lock_id": _hash(told)}))
        with pytest.raises(ChecksumError, match="not a lock of this format"):
            read_lock(path.with_name("edited"))


def test_white_space_and_line_ends_are_no_edit(path):
    told = json.loads(path.read_text())
    path.write_bytes(json.dumps(told, indent=4).replace("\n", "\r\n").encode())
    assert read_lock(path).lock_id == told["lock_id"]


def test_a_newer_format_is_refused(path):
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "format": 2}))
    with pytest.raises(LakeFormatError, match="Upgrade Tidemark"):
        read_lock(path)


def test_a_folder_or_a_place_that_cannot_be_written_is_a_store_that_failed(lock, tmp_path):
    with pytest.raises(StoreUnavailableError):
        read_lock(tmp_path)
    with pytest.raises(StoreUnavailableError):
        write_lock(lock, tmp_path / "no" / "such" / "folder" / "lake.lock")


def test_the_error_of_a_drift_lists_the_changes_and_survives_pickling(lock):
    changes = [Change("data", "snapshot", "a", "b"), Change("engine", "polars", "2.1.0", "2.2.0")]
    error = pickle.loads(pickle.dumps(drifted(lock, changes, where="lake")))
    assert error.changes == [
        "snapshot: a in the lock, b here",
        "polars: 2.1.0 in the lock, 2.2.0 here",
    ]
    assert all(change in str(error) for change in error.changes)
    assert error.facts == changes
