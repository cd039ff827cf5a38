"""A lock of a lake in a real bucket: written, run, and run again against a copy in a folder."""

import logging

import pytest
from kernel_support import BTC, Kernel, Row, series

import lake
from contracts.time import SystemClock
from flows.cli import main
from lake.export import export_snapshot
from lake.lockfile import read_lock
from lake.locks import every_lock
from lake.store import Store

SCRIPT = "import lake; print(lake.open().locked_bars(verify=True).collect()['close'].sum())"


@pytest.fixture(autouse=True)
def _as_a_shell_of_its_own(monkeypatch, tmp_path):
    for name in ("LAKE_LOCK", "LAKE_ROOT", "LAKE_ALLOW_ENGINE_DRIFT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_lock_holds_in_a_bucket_and_in_a_copy_of_it_in_a_folder(s3_root, tmp_path, capfd):
    kernel = Kernel(s3_root)
    kernel.publish(series(range(20)))
    kernel.observe(0, 20)
    manifest = kernel.snapshot(label="paper")
    asked = ("--snapshot", "paper", "--bars", BTC, "--timeframe", "1m")
    assert main(["lock", "--root", s3_root, *asked]) == 0
    lock = read_lock("lake.lock")
    assert (lock.root, lock.snapshot_id) == (s3_root, manifest.snapshot_id)
    assert "secret" not in (tmp_path / "lake.lock").read_text()
    assert [held.lock_id for held in every_lock(kernel.store)] == [lock.lock_id]

    kernel.step(hours=1)
    kernel.publish([Row(3, 9.0)])
    assert main(["lock", "--check", "--verify"]) == 0
    (tmp_path / "strategy.py").write_text(SCRIPT)
    capfd.readouterr()
    assert main(["run", "--locked", "strategy.py"]) == 0
    bucket = capfd.readouterr().out
    assert float(bucket) != lake.open(s3_root).bars(BTC, timeframe="1m").collect()["close"].sum()

    copy = Store(tmp_path / "copy")
    export_snapshot(kernel.store, manifest, copy, SystemClock())
    assert main(["run", "--locked", "--verify", "--root", "copy", "strategy.py"]) == 0
    assert capfd.readouterr().out == bucket
    assert main(["lock", "--release"]) == 0
    assert every_lock(kernel.store) == []
