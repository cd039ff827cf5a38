"""Giving a snapshot up: two steps, a reason, nobody's lock, and a trail for ever."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from kernel_support import BTC, Kernel, Row, series

from contracts.errors import (
    ChecksumError,
    CommitConflictError,
    RequestError,
    SnapshotIncompleteError,
    SnapshotInUseError,
    StoreUnavailableError,
    UnknownSnapshotError,
)
from contracts.tables import BARS
from lake.leases import lease
from lake.locks import every_lock, holders, register, release
from lake.manifest import load_manifest
from lake.pinlog import PinState, add_event, pin_states
from lake.pins import (
    confirm_unpin,
    is_pinned,
    only_reached_by,
    pin,
    pin_events,
    pin_state,
    pinned_ids,
    request_unpin,
)
from lake.verify import verify

LOCK = "a" * 64


@pytest.fixture
def kernel(lake_root):
    made = Kernel(lake_root)
    made.publish(series(range(10)))
    made.observe(0, 10)
    return made


@pytest.fixture
def manifest(kernel):
    """A snapshot whose bars a later revision has replaced."""
    first = kernel.snapshot()
    kernel.publish([Row(3, 9.0)])
    return first


def unpinned(kernel, manifest, why="the paper was withdrawn"):
    asked = request_unpin(kernel.tables, manifest, why=why, by="ada")
    return confirm_unpin(kernel.tables, manifest, token=asked.token, by="bob")


def test_it_takes_two_steps_and_both_are_kept(kernel, manifest):
    store, name = kernel.store, manifest.snapshot_id
    assert pin_state(store, name) is PinState.PINNED
    asked = request_unpin(kernel.tables, manifest, why=" the paper was withdrawn ", by="ada")
    assert is_pinned(store, name)
    assert pin_states(store) == {name: PinState.UNPIN_REQUESTED}
    confirm_unpin(kernel.tables, manifest, token=asked.token, by="bob")
    assert not is_pinned(store, name)
    assert pinned_ids(store) == []
    first, second = pin_events(store, name)
    assert (first.event, first.by, first.why) == (
        PinState.UNPIN_REQUESTED, "ada", "the paper was withdrawn",
    )  # fmt: skip
    assert (second.event, second.by, second.why) == (
        PinState.UNPINNED, "bob", "the paper was withdrawn",
    )  # fmt: skip
    assert abs(kernel.clock.storage() - first.at) < timedelta(minutes=1)
    assert first.at <= second.at
    assert sorted(path.name for path in (kernel.root / "pins" / name).iterdir()) == [
        "000001-unpin_requested.json",
        "000002-unpinned.json",
    ]


def test_only_the_token_of_the_last_request_confirms(kernel, manifest):
    def confirm(token):
        return confirm_unpin(kernel.tables, manifest, token=token)

    for token in ("", "00000000"):
        with pytest.raises(RequestError, match="does not confirm"):
            confirm(token)
    first = request_unpin(kernel.tables, manifest, why="x")
    second = request_unpin(kernel.tables, manifest, why="y")
    with pytest.raises(RequestError, match="does not confirm"):
        confirm(first.token)
    assert pin(kernel.tables, manifest) is PinState.UNPIN_REQUESTED
    with pytest.raises(RequestError, match="does not confirm"):
        confirm(second.token)
    assert is_pinned(kernel.store, manifest.snapshot_id)


def test_a_reason_is_needed_and_unpinning_twice_is_refused(kernel, manifest):
    with pytest.raises(RequestError, match="needs a reason"):
        request_unpin(kernel.tables, manifest, why="  ")
    done = unpinned(kernel, manifest)
    for work in (
        lambda: request_unpin(kernel.tables, manifest, why="again"),
        lambda: confirm_unpin(kernel.tables, manifest, token=done.token or ""),
    ):
        with pytest.raises(RequestError, match=r"unpinned already, by bob \(the paper"):
            work()


def test_what_would_become_deletable_is_what_this_snapshot_alone_keeps(kernel, manifest):
    (entry,) = manifest.view(BARS.name).files
    alone = only_reached_by(kernel.tables, manifest)
    assert (alone.files, alone.size_bytes) == (1, entry.size)
    newest = kernel.snapshot()
    assert only_reached_by(kernel.tables, newest).files == 0  # the heads name its files
    assert only_reached_by(kernel.tables, manifest) == alone
    kernel.observe(10, 20)
    both = kernel.snapshot()
    assert set(both.tables) == set(newest.tables)
    kernel.publish([Row(4, 9.0)])
    kernel.observe(20, 30)
    assert only_reached_by(kernel.tables, both).files == 1  # the ledger; newest has the bars
    unpinned(kernel, newest)
    assert only_reached_by(kernel.tables, both).files == 3


def test_a_locked_snapshot_is_not_given_up(kernel, manifest):
    store, name = kernel.store, manifest.snapshot_id
    lock = register(store, kernel.clock, snapshot_id=name, lock_id=LOCK, held_by="ada", note="m.py")
    assert register(store, kernel.clock, snapshot_id=name, lock_id=LOCK, held_by="bob") == lock
    assert holders(store, name) == every_lock(store) == [lock]
    with pytest.raises(SnapshotInUseError, match=r"is locked: aaaaaaaaaaaa of ada \(m\.py\)") as e:
        request_unpin(kernel.tables, manifest, why="x")
    assert (e.value.locks, e.value.exit_code) == ([LOCK], 2)
    assert release(store, LOCK)
    assert not release(store, LOCK)
    asked = request_unpin(kernel.tables, manifest, why="x")
    register(store, kernel.clock, snapshot_id=name, lock_id=LOCK)
    with pytest.raises(SnapshotInUseError):
        confirm_unpin(kernel.tables, manifest, token=asked.token)
    assert is_pinned(store, name)
    release(store, LOCK)
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    with pytest.raises(RequestError, match="lake snapshot pin"):
        register(store, kernel.clock, snapshot_id=name, lock_id=LOCK)
    assert holders(store, name) == []


def test_a_lock_that_comes_between_the_look_and_the_event_wins(kernel, manifest, monkeypatch):
    store, name = kernel.store, manifest.snapshot_id
    asked = request_unpin(kernel.tables, manifest, why="x")

    def with_a_lock_first(*arguments, **options):
        monkeypatch.undo()
        register(store, kernel.clock, snapshot_id=name, lock_id=LOCK)
        return add_event(*arguments, **options)

    monkeypatch.setattr("lake.pins.add_event", with_a_lock_first)
    with pytest.raises(SnapshotInUseError):
        confirm_unpin(kernel.tables, manifest, token=asked.token)
    assert is_pinned(store, name)
    assert pin_events(store, name)[-1].why == "a lock came first"


def test_locks_are_checked_before_they_are_believed(kernel, manifest):
    store, name = kernel.store, manifest.snapshot_id
    for wrong in ("", "../x", "A" * 64, "a" * 63):
        with pytest.raises(RequestError, match="no lock_id"):
            register(store, kernel.clock, snapshot_id=name, lock_id=wrong)
    with pytest.raises(UnknownSnapshotError):
        register(store, kernel.clock, snapshot_id="2026-04-01-00000000", lock_id=LOCK)
    store.put(f"locks/{LOCK}.json", b"torn")
    with pytest.raises(ChecksumError, match=LOCK):
        request_unpin(kernel.tables, manifest, why="x")
    assert is_pinned(store, name)


def test_an_unpinned_snapshot_reads_while_its_files_are_there_and_then_names_who(kernel, manifest):
    name = manifest.snapshot_id
    before = kernel.lake(snapshot=name).bars(BTC, timeframe="1m").collect()
    unpinned(kernel, manifest)
    assert kernel.lake(snapshot=name).bars(BTC, timeframe="1m").collect().equals(before)
    assert verify(kernel.store, manifest).files == 2
    (entry,) = manifest.view(BARS.name).files
    (kernel.root / BARS.path / entry.path).unlink()
    at = f"{pin_events(kernel.store, name)[-1].at:%Y-%m-%dT%H:%M}"
    for work in (
        lambda: kernel.lake(snapshot=name).bars(BTC, timeframe="1m").collect(),
        lambda: verify(kernel.store, manifest, level="quick"),
    ):
        with pytest.raises(SnapshotIncompleteError, match=entry.sha256) as error:
            work()
        assert f"bob unpinned snapshot {name} at {at}" in str(error.value)
        assert "(the paper was withdrawn)" in str(error.value)
    with pytest.raises(SnapshotIncompleteError):
        pin(kernel.tables, manifest)
    assert not is_pinned(kernel.store, name)


def test_pinning_again_keeps_it_and_leaves_the_trail(kernel, manifest):
    name = manifest.snapshot_id
    unpinned(kernel, manifest)
    assert pin(kernel.tables, manifest, why="a referee asks", by="cy") is PinState.UNPINNED
    assert pin(kernel.tables, manifest) is PinState.PINNED
    assert is_pinned(kernel.store, name)
    told = [(each.event.value, each.by) for each in pin_events(kernel.store, name)]
    assert told == [("unpin_requested", "ada"), ("unpinned", "bob"), ("pinned", "cy")]
    assert not list((kernel.root / "leases").iterdir())
    unpinned(kernel, manifest, why="after all")
    assert len(pin_events(kernel.store, name)) == 5


def test_pinning_again_gives_way_to_a_vacuum(kernel, manifest):
    unpinned(kernel, manifest)
    with (
        lease(kernel.store, kernel.clock, "maintain"),
        pytest.raises(CommitConflictError, match="under way"),
    ):
        pin(kernel.tables, manifest)
    assert not is_pinned(kernel.store, manifest.snapshot_id)
    pin(kernel.tables, manifest)
    assert is_pinned(kernel.store, manifest.snapshot_id)


def test_an_unpin_that_was_only_asked_for_is_withdrawn_whatever_goes_on(
    kernel, manifest, monkeypatch
):
    store, name = kernel.store, manifest.snapshot_id
    request_unpin(kernel.tables, manifest, why="x")
    with lease(store, kernel.clock, "maintain"):
        assert pin(kernel.tables, manifest) is PinState.UNPIN_REQUESTED
    assert pin_state(store, name) is PinState.PINNED

    def unavailable(_):
        raise StoreUnavailableError("503", remedy="wait")

    request_unpin(kernel.tables, manifest, why="x")
    monkeypatch.setattr("lake.pins.held", unavailable)
    pin(kernel.tables, manifest)
    assert [each.event for each in pin_events(store, name)][-1] is PinState.PINNED


def test_an_unpin_confirmed_while_it_is_withdrawn_is_given_way_to_a_vacuum(
    kernel, manifest, monkeypatch
):
    store = kernel.store
    asked = request_unpin(kernel.tables, manifest, why="x")

    def confirmed_first(*arguments, **options):
        monkeypatch.undo()
        confirm_unpin(kernel.tables, manifest, token=asked.token)
        return add_event(*arguments, **options)

    monkeypatch.setattr("lake.pins.add_event", confirmed_first)
    with (
        lease(store, kernel.clock, "maintain"),
        pytest.raises(CommitConflictError, match="under way"),
    ):
        pin(kernel.tables, manifest)
    assert not is_pinned(store, manifest.snapshot_id)


def test_two_who_change_a_pin_at_once_are_told_and_the_files_stay(kernel, manifest, monkeypatch):
    store, name = kernel.store, manifest.snapshot_id
    asked = request_unpin(kernel.tables, manifest, why="x")
    monkeypatch.setattr("lake.pins.add_event", racing(store, name))
    with pytest.raises(CommitConflictError, match="Somebody else"):
        confirm_unpin(kernel.tables, manifest, token=asked.token)
    assert is_pinned(store, name)
    assert pin_state(store, name) is PinState.PINNED


def racing(store, name):
    """Return an add_event that finds another's event beside its own."""

    def add(*arguments, **options):
        rival = {"event": "pinned", "by": "x", "at": "2026-04-01", "why": "", "token": None}
        create = store.create

        def create_both(path, data):
            create(f"pins/{name}/000002-pinned.json", json.dumps(rival).encode())
            return create(path, data)

        store.create = create_both
        try:
            return add_event(*arguments, **options)
        finally:
            del store.create

    return add


def test_an_event_that_this_version_does_not_know_keeps_the_files(kernel, manifest):
    name = manifest.snapshot_id
    unpinned(kernel, manifest)
    kernel.store.put(f"pins/{name}/000003-frozen.json", b"{}")
    assert is_pinned(kernel.store, name)
    kernel.store.put(f"pins/{name}/000004-unpinned.json", b"torn")
    assert not is_pinned(kernel.store, name)
    with pytest.raises(ChecksumError, match="000003"):
        pin_events(kernel.store, name)


def test_what_happens_to_one_pin_happens_to_no_other(kernel, manifest):
    other = kernel.snapshot()
    unpinned(kernel, manifest)
    assert pinned_ids(kernel.store) == [other.snapshot_id]
    listed = kernel.lake().snapshots()
    told = dict(listed.select("snapshot_id", "pin").iter_rows())
    assert told == {manifest.snapshot_id: "unpinned", other.snapshot_id: "pinned"}
    assert load_manifest(kernel.store, manifest.snapshot_id) == manifest
