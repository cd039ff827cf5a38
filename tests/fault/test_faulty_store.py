"""The store that fails on a plan: each operation is struck, once, and as the plan says."""

from __future__ import annotations

import pytest
from faulty_store import KINDS, Crash, FaultPlan, faults
from kernel_support import Kernel

from contracts.errors import StoreUnavailableError
from lake.leases import every_lease, lease
from lake.store import Store

PATH = "silver/bars/part.parquet"
OPERATIONS = {
    "put": lambda store, _: store.put(PATH, b"new"),
    "create": lambda store, _: store.create("other", b"new"),
    "delete": lambda store, _: store.delete(PATH),
    "delete_unless_newer": lambda store, modified: store.delete_unless_newer(PATH, modified),
    "get": lambda store, _: store.get(PATH),
    "size": lambda store, _: store.size(PATH),
    "sizes": lambda store, _: store.sizes("silver"),
    "sizes_of": lambda store, _: store.sizes_of([PATH], below="silver"),
    "tail": lambda store, _: store.tail(PATH, 3, 1),
    "listing": lambda store, _: store.listing("silver"),
    "leftovers": lambda store, _: store.leftovers(),
}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path, fsync=False)
    made.put(PATH, b"old")
    return made


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["before", "after", "timeout", "slow"])
def test_every_operation_is_struck_once(store, name, kind):
    modified = store.listing("silver")[PATH].modified
    with faults(FaultPlan(1, rate=1.0, kinds=(kind,))) as plan:
        if kind == "slow":
            OPERATIONS[name](store, modified)
        else:
            with pytest.raises(StoreUnavailableError, match="injected"):
                OPERATIONS[name](store, modified)
    assert [told[2] for told in plan.told] == [kind]


@pytest.mark.parametrize(
    ("kind", "stands", "aside"),
    [("before", True, 0), ("after", False, 0), ("timeout", False, 0), ("torn", False, 1)],
)
def test_a_deletion_that_fails_has_its_effect_or_none_or_half_of_it(store, kind, stands, aside):
    modified = store.listing("silver")[PATH].modified
    with (
        faults(FaultPlan(1, rate=1.0, kinds=(kind,))),
        pytest.raises(StoreUnavailableError),
    ):
        store.delete_unless_newer(PATH, modified)
    assert (store.size(PATH) is not None) == stands
    assert len(store.leftovers()) == aside


def test_the_dead_delete_and_list_nothing(store):
    modified = store.listing("silver")[PATH].modified
    with faults(FaultPlan(1, crash_at=1)):
        for operation in OPERATIONS["delete_unless_newer"], *OPERATIONS.values():
            with pytest.raises(Crash):
                operation(store, modified)
    assert store.size(PATH) == 3


def test_a_stale_listing_lacks_what_was_written_last_leases_too(tmp_path):
    kernel = Kernel(tmp_path / "lake")
    with faults(FaultPlan(1, rate=1.0, kinds=("stale",))):
        with lease(kernel.store, kernel.clock, "snapshot"):
            assert every_lease(kernel.store) == []
        kernel.store.put(PATH, b"new")
        assert kernel.store.listing("silver") == kernel.store.sizes("silver") == {}
        assert kernel.store.sizes_of([PATH], below="silver") == [None]
    assert kernel.store.sizes("silver") == {PATH: 3}
    assert "stale" in KINDS
