"""Same state, same id; any change, another id."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import GENERATED, KNOWN, Kernel, Row, audits_of, quarantine_of, response_of

from contracts.tables import State

CHANGES = {
    "land": lambda kernel, n: kernel.land(response_of(b"[%d]" % n)).changed,
    "quarantine": lambda kernel, n: kernel.quarantine(quarantine_of([n])).changed,
    "audit": lambda kernel, n: kernel.audit(audits_of(["x"] * (n + 1))).changed,
    "publish": lambda kernel, n: kernel.publish([Row(n, 1.0)]).new > 0,
    "revise": lambda kernel, n: kernel.publish([Row(0, 10.0 + n)]).known_from is not None,
    "present": lambda kernel, n: kernel.observe(0, n + 1) > 0,
    "missing": lambda kernel, n: kernel.observe(n, n + 1, State.MISSING) > 0,
    "nothing": lambda kernel, n: bool(kernel.step(minutes=n)) and False,
}


@settings(max_examples=10, phases=GENERATED)
@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 3)), max_size=8))
def test_an_id_names_one_state(tmp_path_factory, told):
    """Two lakes that live through the same pin the same ids; ids change with the state alone."""
    lakes = [Kernel(tmp_path_factory.mktemp("ids") / "lake", known=KNOWN) for _ in range(2)]
    for kernel in lakes:
        kernel.publish([Row(0, 1.0)])
    before = lakes[0].snapshot().snapshot_id
    seen = {before}
    for name, number in told:
        changed = {CHANGES[name](kernel, number) for kernel in lakes}
        ids = {kernel.snapshot(label=name).snapshot_id for kernel in lakes}
        assert len(changed) == len(ids) == 1
        after = ids.pop()
        assert (after != before) == changed.pop(), name
        assert after == before or after not in seen
        seen.add(after)
        before = after
