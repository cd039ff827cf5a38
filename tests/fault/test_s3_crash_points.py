"""kill -9 on a real S3 server: what a folder shows before each operation, before some of them."""

from __future__ import annotations

import pytest
from test_crash_points import test_killed_before_any_operation_and_run_again_nothing_differs
from test_maintain_crashes import (
    test_maintenance_killed_before_any_operation_and_run_again_nothing_differs,
)
from test_snapshot_faults import (
    test_killed_before_any_operation_and_run_again_a_snapshot_is_whole_or_not_there,
)

__all__ = [
    "test_killed_before_any_operation_and_run_again_a_snapshot_is_whole_or_not_there",
    "test_killed_before_any_operation_and_run_again_nothing_differs",
    "test_maintenance_killed_before_any_operation_and_run_again_nothing_differs",
]
EVERY = {
    test_killed_before_any_operation_and_run_again_a_snapshot_is_whole_or_not_there: 6,
    test_killed_before_any_operation_and_run_again_nothing_differs: 3,
    test_maintenance_killed_before_any_operation_and_run_again_nothing_differs: 8,
}


@pytest.fixture
def lake_root(s3_root):
    return s3_root


@pytest.fixture
def every(request):
    return EVERY[request.function]
