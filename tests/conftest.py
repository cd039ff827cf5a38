"""Fixtures and markers of all tests."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from s3_support import any_root, ceph, own_ceph, s3_bucket, s3_root  # noqa: F401

from contracts.names import Timeframe
from contracts.tables import BARS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RECORDED = ROOT.parent / "shared" / "data"
FOLDERS = ("unit", "property", "integration", "fault", "e2e", "live")

_calm = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, suppress_health_check=_calm
)
settings.register_profile(
    "search", max_examples=2_000, deadline=None, database=None, suppress_health_check=_calm
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config):
    for folder in FOLDERS[:-1]:
        config.addinivalue_line("markers", f"{folder}: lies in tests/{folder}")
    config.addinivalue_line("markers", "s3: needs Ceph; infra/s3/install.sh installs it")


def pytest_collection_modifyitems(config, items):
    asked_live = "live" in (config.option.markexpr or "")
    kept, left_out = [], []
    for item in items:
        folder = _folder(item.path)
        if folder:
            item.add_marker(folder)
        if "recorded" in getattr(item, "fixturenames", ()):
            item.add_marker("recorded")
        if {"s3_root", "ceph", "own_ceph"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("s3")
        live = item.get_closest_marker("live") is not None
        (left_out if live and not asked_live else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _folder(path):
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    inside = len(parts) > 2 and parts[0] == "tests" and parts[1] in FOLDERS
    return parts[1] if inside else None


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded tapes, or a skip."""
    if not (RECORDED / "tape.toml").is_file():
        pytest.skip(f"no recorded data at {RECORDED}")
    return RECORDED


@pytest.fixture
def lake_root(tmp_path) -> Path:
    """A path where a lake may be made."""
    return tmp_path / "lake"


@pytest.fixture
def every() -> int:
    """How many operations a crash test goes on by: it dies before each."""
    return 1


@pytest.fixture(scope="session")
def make_bars() -> Callable[..., pl.DataFrame]:
    """A factory of sound bars in the schema of silver.bars."""
    return _make_bars


def _make_bars(
    rows=10,
    *,
    instrument="BTC-USDT-SPOT.BINANCE",
    timeframe="1m",
    start=datetime(2026, 3, 24, tzinfo=UTC),
) -> pl.DataFrame:
    step = Timeframe.parse(timeframe).duration
    index = pl.int_range(rows, dtype=pl.Int64)
    opens = pl.lit(start) + index * pl.lit(step)
    base = 100 + (index * 7_919 % 1_000) / 10
    volume = (index * 104_729 % 100_003) / 7
    frame = pl.select(
        instrument_id=pl.lit(instrument),
        venue=pl.lit(instrument.rpartition(".")[2].lower()),
        timeframe=pl.lit(timeframe),
        year=opens.dt.year(),
        open_time=opens,
        open=base,
        high=base + 1.5,
        low=base - 1.25,
        close=base + (index * 31 % 20 - 10) / 10,
        volume=volume,
        quote_volume=volume * base,
        trade_count=index % 500,
        taker_buy_volume=volume / 2,
        taker_buy_quote_volume=volume * base / 2,
        source=pl.lit("rest"),
        available_at=opens + pl.lit(step + timedelta(seconds=5)),
        known_from=pl.lit(datetime(2026, 4, 1, tzinfo=UTC)),
    )
    return BARS.check_schema(frame.select(pl.col(n).cast(t) for n, t in BARS.schema.items()))
