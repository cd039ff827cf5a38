"""Whatever is published, revised, pinned and given up in between: maintenance without grace
changes no row of the heads, breaks no pin, and leaves no file that nobody needs."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_support import BTC, ETH, GENERATED, KNOWN, START, Kernel, Row, seal_early

from contracts.tables import BAR_REVISIONS, BARS, TABLES
from lake.compact import closed_partitions, compact_partition
from lake.pins import confirm_unpin, is_pinned, request_unpin
from lake.reach import PinnedFiles, head_files
from lake.scan import read_files
from lake.vacuum import Rules, sweep

ROWS = st.lists(
    st.builds(
        Row,
        minute=st.integers(0, 30),
        close=st.sampled_from([100.5, 101.5, 102.5]),
        instrument=st.sampled_from([BTC, ETH]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: (row.minute, row.instrument),
)
KINDS = ("publish", "publish", "publish", "snapshot", "compact", "vacuum", "vacuum", "unpin")


@st.composite
def walks(draw):
    """Return steps and their arguments; the first fills the lake."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=6, max_size=16))
    given = {"publish": ROWS, "unpin": st.integers(0, 20)}
    return [(kind, draw(given.get(kind, st.none()))) for kind in ("publish", *kinds)]


class Model:
    """A lake, what its heads must say, and what each pin must."""

    def __init__(self, root: Path) -> None:
        self.kernel = Kernel(root, known=KNOWN + timedelta(days=365))
        self.closes: dict[tuple[str, int], float] = {}
        self.pins: dict[str, dict[str, list]] = {}

    def publish(self, rows: list[Row]) -> None:
        self.kernel.step(seconds=1)
        self.kernel.publish(rows)
        self.closes |= {(row.instrument, row.minute): row.close for row in rows}

    def snapshot(self, _: None) -> None:
        if self.closes:
            manifest = self.kernel.snapshot()
            if is_pinned(self.kernel.store, manifest.snapshot_id):
                self.pins[manifest.snapshot_id] = self.pinned_rows(manifest.snapshot_id)

    def compact(self, _: None) -> None:
        for spec in (BARS, BAR_REVISIONS):
            table = self.kernel.tables[spec.name]
            for files in closed_partitions(table.head(), self.kernel.clock.known()):
                compact_partition(table, files[0].partition)
                assert compact_partition(table, files[0].partition) == 0

    def vacuum(self, _: None) -> None:
        kernel = self.kernel
        sweep(kernel.tables, Rules(grace=timedelta(0)), run_id=f"{len(self.closes)}")
        needed = head_files(kernel.tables).keys() | PinnedFiles(kernel.store).paths()
        silver = {path for path in kernel.store.sizes("silver") if "/part-" in path}
        assert silver == {path for path in needed if path.startswith("silver/")}

    def unpin(self, number: int) -> None:
        if self.pins:
            name = sorted(self.pins)[number % len(self.pins)]
            manifest = self.kernel.lake(snapshot=name).manifest
            asked = request_unpin(self.kernel.tables, manifest, why="done")
            confirm_unpin(self.kernel.tables, manifest, token=asked.token)
            del self.pins[name]

    def pinned_rows(self, name: str) -> dict[str, list]:
        manifest = self.kernel.lake(snapshot=name).manifest
        return {
            table: read_files(self.kernel.store, TABLES[table], manifest.view(table).files).rows()
            for table in manifest.tables
        }

    def check(self) -> None:
        if self.closes:
            bars = self.kernel.rows(BARS)
            minutes = ((bars["open_time"] - START).dt.total_minutes()).to_list()
            told = zip(bars["instrument_id"], minutes, bars["close"], strict=True)
            assert {(name, minute): close for name, minute, close in told} == self.closes
        for name, rows in self.pins.items():
            assert self.pinned_rows(name) == rows


@settings(
    max_examples=25,
    deadline=None,
    phases=GENERATED,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(walks())
def test_heads_and_pins_read_what_the_model_says_after_every_step(steps):
    root = Path(tempfile.mkdtemp())
    try:
        with pytest.MonkeyPatch.context() as patch:
            seal_early(patch, 5, fan_in=4)
            patch.setattr("lake.layout.series_rows", lambda spec: 8 * bool(spec.series_rows))
            model = Model(root / "lake")
            for name, argument in steps:
                getattr(model, name)(argument)
                model.check()
    finally:
        shutil.rmtree(root)
