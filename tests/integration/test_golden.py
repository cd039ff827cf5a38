"""Lakes that released versions wrote are read, verified and written on by today's code."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from golden_support import shown
from kernel_support import KNOWN, Kernel, Row

from lake.manifest import load_manifest
from lake.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = sorted(each.name for each in GOLDEN.iterdir() if (each / "lake").is_dir())


@pytest.fixture(params=VERSIONS)
def golden(request, tmp_path):
    """Return a copy of a golden lake, and what its version read of it."""
    shutil.copytree(GOLDEN / request.param / "lake", tmp_path / "lake")
    expected = json.loads((GOLDEN / request.param / "expected.json").read_text())
    return tmp_path / "lake", expected


def test_there_is_a_golden_lake():
    assert VERSIONS


def test_it_reads_as_the_version_that_wrote_it_read_it(golden):
    root, expected = golden
    kernel = Kernel(root, known=KNOWN + timedelta(hours=1))
    assert shown(kernel.lake()) == expected.pop("heads")
    assert len(expected) == 2
    for snapshot_id, told in expected.items():
        assert shown(kernel.lake(snapshot=snapshot_id, verify=True)) == told
        assert verify(kernel.store, load_manifest(kernel.store, snapshot_id), level="deep").files


def test_it_is_written_on_and_its_snapshots_stay(golden):
    root, expected = golden
    kernel = Kernel(root, known=KNOWN + timedelta(hours=2))
    done = kernel.publish([Row(0, 300.0), Row(40, 1.0)])
    assert (done.new, done.revised) == (1, 1)
    assert kernel.snapshot().snapshot_id not in expected
    del expected["heads"]
    for snapshot_id, told in expected.items():
        assert shown(kernel.lake(snapshot=snapshot_id, verify=True)) == told


def test_the_label_still_names_its_snapshot(golden):
    root, expected = golden
    assert Kernel(root).lake(snapshot="golden").snapshot_id in expected
