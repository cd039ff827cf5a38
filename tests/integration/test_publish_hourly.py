"""Hundreds of hourly updates: few files, one order, no rows lost."""

from __future__ import annotations

import pytest
from kernel_support import BTC, ETH, START, Kernel, seal_early, series

from contracts.tables import BARS

HOURS = 300


@pytest.mark.slow
def test_three_hundred_hourly_updates_leave_few_files_in_one_order(lake_root, monkeypatch):
    seal_early(monkeypatch, 200)
    kernel = Kernel(lake_root)
    for hour in range(HOURS):
        minutes = range(hour * 10, hour * 10 + 10)
        rows = [*series(minutes, instrument=ETH), *series(minutes)]
        assert kernel.publish(rows).new == 20
        kernel.step(hours=1)
    files = kernel.tables[BARS.name].head().files
    assert len(files) <= 16
    assert sum(entry.rows for entry in files) == HOURS * 20

    lk = kernel.lake()
    bars = lk.bars([BTC, ETH], timeframe="1m").collect()
    assert bars.height == HOURS * 20
    assert bars.equals(bars.sort("instrument_id", "open_time"))
    for _ in range(5):
        assert lk.bars([BTC, ETH], timeframe="1m").collect().equals(bars)
    one = lk.bars(ETH, timeframe="1m", start=START, columns=["open_time", "close"]).collect()
    assert one["close"].to_list() == [row.close for row in series(range(HOURS * 10))]
    assert kernel.tables[BARS.name].head().version == HOURS
