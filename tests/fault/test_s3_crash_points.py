"""kill -9 on a real S3 server: what a folder shows before each operation, before some of them."""

from __future__ import annotations

import pytest
from test_crash_points import test_killed_before_any_operation_and_run_again_nothing_differs

__all__ = [
    "test_killed_before_any_operation_and_run_again_nothing_differs",
]
EVERY = {
    test_killed_before_any_operation_and_run_again_nothing_differs: 2,
}


@pytest.fixture
def lake_root(s3_root):
    return s3_root


@pytest.fixture
def every(request):
    return EVERY[request.function]
