"""Snapshots made, carried and given up while processes race, die, or meet a full disk."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_store import FaultPlan, faults
from kernel_support import BTC, Kernel, Row, copy_lake, response_of, series
from machine_support import unpin
from processes import child, finished, killed
from test_crash_points import NEVER, Countdown
from test_disk import assert_told, small_disk  # noqa: F401 - a fixture
from test_races import wait_for

import lake
from contracts.errors import (
    CommitConflictError,
    RequestError,
    StoreUnavailableError,
    TidemarkError,
)
from contracts.time import SystemClock
from lake.export import export_snapshot, import_snapshots
from lake.labels import every_label, resolve_snapshot
from lake.manifest import load_manifest, snapshot_ids
from lake.pins import confirm_unpin, is_pinned, pin, pin_events, request_unpin
from lake.root import read_lake
from lake.store import Store
from lake.verify import verify

CLOCK = SystemClock()
PLACES = ("lake", "out", "other")


def filled(root):
    kernel = Kernel(root)
    kernel.land(response_of(b"[1]"))
    kernel.publish(series(range(10)))
    kernel.observe(0, 10)
    return kernel


# Several processes at once


def at_once(call, root, gate, count=3):
    """Run children that start their work at the same moment; return what they said."""
    processes = [child(Path(__file__), call, root, gate, each) for each in range(count)]
    for each in range(count):
        wait_for(f"{gate}-{each}")
    gate.touch()
    return [json.loads(finished(process)) for process in processes]


def entered(root, gate, who):
    kernel = Kernel(Path(root))
    Path(f"{gate}-{who}").touch()
    wait_for(gate)
    return kernel


def create_one(root, gate, who):
    kernel = entered(root, gate, who)
    sys.stdout.write(
        json.dumps([kernel.snapshot(label=label).snapshot_id for label in ("same", f"by{who}")])
    )


def test_creates_at_once_give_one_id_and_no_error(lake_root, tmp_path):
    kernel = filled(lake_root)
    told = at_once("create_one", lake_root, tmp_path / "gate")
    assert len({name for names in told for name in names}) == 1
    (name,) = snapshot_ids(kernel.store)
    assert {name} == {each for names in told for each in names}
    assert verify(kernel.store, load_manifest(kernel.store, name), level="deep").files == 3
    assert [label.label for label in every_label(kernel.store)] == ["by0", "by1", "by2", "same"]
    assert not list((lake_root / "leases").iterdir())


def test_creates_at_once_of_what_was_given_up_pin_it_again(lake_root, tmp_path):
    kernel = filled(lake_root)
    manifest = kernel.snapshot()
    asked = request_unpin(kernel.tables, manifest, why="x")
    confirm_unpin(kernel.tables, manifest, token=asked.token)
    told = at_once("create_one", lake_root, tmp_path / "gate")
    assert {name for names in told for name in names} == {manifest.snapshot_id}
    assert is_pinned(kernel.store, manifest.snapshot_id)


def carry_one(root, gate, who):
    kernel = entered(root, gate, who)
    manifest = resolve_snapshot(kernel.store, "paper")
    done = export_snapshot(kernel.store, manifest, Store(f"{root}-out"), CLOCK)
    sys.stdout.write(json.dumps([done.snapshot_id, done.files]))


def test_an_export_that_another_overtakes_goes_on_beside_it(lake_root, tmp_path, monkeypatch):
    kernel = filled(lake_root)
    manifest = kernel.snapshot()
    target, look = Store(tmp_path / "out", fsync=False), lake.export._holds_anything

    def overtaken(store):
        monkeypatch.undo()
        export_snapshot(kernel.store, manifest, target, kernel.clock)
        return look(store)

    monkeypatch.setattr("lake.export._holds_anything", overtaken)
    done = export_snapshot(kernel.store, manifest, target, kernel.clock)
    assert (done.files > 0, done.copied) == (True, 0)


def test_exports_to_one_place_at_once_leave_one_whole_snapshot(lake_root, tmp_path):
    manifest = filled(lake_root).snapshot(label="paper")
    told = at_once("carry_one", lake_root, tmp_path / "gate")
    assert told == [[manifest.snapshot_id, 3]] * 3
    there = Store(f"{lake_root}-out")
    assert verify(there, load_manifest(there, manifest.snapshot_id), level="deep").files == 3
    assert not list((there.path / "leases").iterdir())


def change_pin(root, gate, who):
    kernel = entered(root, gate, who)
    manifest = resolve_snapshot(kernel.store, "paper")
    done = []
    for _ in range(12):
        try:
            if int(who) == 0:
                token = request_unpin(kernel.tables, manifest, why="x").token
                confirm_unpin(kernel.tables, manifest, token=token)
                done.append("unpinned")
            else:
                done.append(pin(kernel.tables, manifest).value)
        except CommitConflictError:
            done.append("conflict")
        except TidemarkError as error:
            done.append(error.code)
    sys.stdout.write(json.dumps(done))


def test_pins_changed_at_once_keep_a_trail_without_gaps(lake_root, tmp_path):
    kernel = filled(lake_root)
    name = kernel.snapshot(label="paper").snapshot_id
    told = at_once("change_pin", lake_root, tmp_path / "gate", count=2)
    assert {code for codes in told for code in codes} <= {
        "unpinned", "pinned", "unpin_requested", "conflict", "request",
    }  # fmt: skip
    events = pin_events(kernel.store, name)
    assert events
    assert sorted({each.sequence for each in events}) == list(range(1, events[-1].sequence + 1))
    pin(kernel.tables, load_manifest(kernel.store, name))
    assert is_pinned(kernel.store, name)


# Killed before each operation


def start_export(root):
    kernel = filled(root)
    kernel.snapshot(label="paper")
    kernel.publish([Row(3, 9.0)])
    return kernel


def carry(root):
    """Export the snapshot, give the lake's own up, import it into a lake that lacks it."""
    lake_store, out, other = (Store(f"{root}/{name}", fsync=False) for name in PLACES)
    export_snapshot(lake_store, resolve_snapshot(lake_store, "paper"), out, CLOCK)
    (done,) = import_snapshots(out, other, CLOCK)
    return done.snapshot_id


def carry_and_die(root, left):
    """Run in the child: die before operation ``left``, if there is one."""
    countdown = Countdown(int(left))
    countdown.install(setattr)
    sys.stdout.write(f"{carry(root)} {countdown.seen}")


def left_by(root):
    """Return what both places hold, without what crashes leave and readers drop."""
    return {
        (place, path): store.get(path)
        for place, store in ((name, Store(f"{root}/{name}")) for name in PLACES[1:])
        for path in store.sizes("")
        if "#" not in path and not path.startswith("leases/")
    }


def test_killed_before_any_operation_and_run_again_a_snapshot_is_whole_or_not_there(
    lake_root, every
):
    start, whole = f"{lake_root}/start", f"{lake_root}/whole"
    start_export(f"{start}/lake")
    Kernel(f"{start}/other").publish([Row(1, 1.0)])
    copy_lake(start, whole)
    name, operations = finished(child(Path(__file__), "carry_and_die", whole, NEVER)).split()
    assert 12 <= int(operations) <= 20
    expected = left_by(whole)

    def crash(left):
        root = f"{lake_root}/crash-{left}"
        copy_lake(start, root)
        killed(child(Path(__file__), "carry_and_die", root, left))
        return root

    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(crash, range(1, int(operations) + 1, every)))
    for root in roots:
        for place in PLACES[1:]:
            assert_whole_or_absent(Store(f"{root}/{place}"), name)
        assert carry(root) == name
        assert left_by(root) == expected, root


def assert_whole_or_absent(store, name):
    if store.get("lake.json") is None:
        return
    read_lake(store)
    if name in snapshot_ids(store):
        assert verify(store, load_manifest(store, name), level="deep").files == 3


# A full disk


def test_an_export_to_a_full_disk_is_named_and_goes_on_when_there_is_room(
    lake_root,
    small_disk,  # noqa: F811
):
    kernel = filled(lake_root)
    kernel.publish(series(range(10, 3000)))
    manifest = kernel.snapshot()
    there = Store(small_disk / "out")
    ballast = small_disk / "ballast"
    fs = os.statvfs(small_disk)
    ballast.write_bytes(bytes(fs.f_bavail * fs.f_frsize - 24 * fs.f_frsize))
    with pytest.raises(StoreUnavailableError) as error:
        export_snapshot(kernel.store, manifest, there, CLOCK)
    assert_told(error, "No space left on device")
    assert snapshot_ids(there) == []
    assert not list((there.path / "leases").iterdir())
    ballast.unlink()
    done = export_snapshot(kernel.store, manifest, there, CLOCK)
    assert done.copied < done.files
    bars = lake.open(there.uri, snapshot=manifest.snapshot_id, verify=True)
    assert bars.bars(BTC, timeframe="1m").collect().height == 3000


def test_no_room_for_a_label_or_an_event_changes_nothing(small_disk):  # noqa: F811
    kernel = filled(small_disk / "lake")
    first = kernel.snapshot(label="paper")
    kernel.publish([Row(3, 9.0)])
    second = kernel.snapshot()
    ballast = small_disk / "ballast"
    fs = os.statvfs(small_disk)
    ballast.write_bytes(bytes(fs.f_bavail * fs.f_frsize))
    for work in (
        lambda: kernel.snapshot(label="paper"),
        lambda: request_unpin(kernel.tables, second, why="x"),
    ):
        with pytest.raises(StoreUnavailableError) as error:
            work()
        assert_told(error, "No space left on device")
    assert kernel.lake(snapshot="paper").snapshot_id == first.snapshot_id
    assert is_pinned(kernel.store, second.snapshot_id)
    ballast.unlink()
    assert kernel.snapshot(label="paper").snapshot_id == second.snapshot_id
    assert kernel.lake(snapshot="paper").snapshot_id == second.snapshot_id


def test_an_unpin_that_sees_a_stale_listing_is_refused_and_the_pin_stays(lake_root):
    kernel = filled(lake_root)
    snapshot_id = kernel.snapshot().snapshot_id
    stale = FaultPlan(1, rate=1.0, kinds=("stale",))
    with faults(stale), pytest.raises(RequestError, match="does not confirm"):
        unpin(kernel, snapshot_id)
    assert is_pinned(kernel.store, snapshot_id)
    unpin(kernel, snapshot_id)
    assert not is_pinned(kernel.store, snapshot_id)
