"""What holds on a folder holds on a bucket: the same tests, with the lake on a real S3 server."""

from __future__ import annotations

import pytest
from test_landing import (
    kernel,
    test_a_body_older_than_the_look_back_is_kept_again,
    test_a_second_landing_makes_no_commit,
    test_an_equal_body_is_kept_once,
    test_every_body_comes_back_as_it_came,
    test_pages_of_one_batch_are_one_commit_in_order,
)
from test_path_backfill import (
    tape,
    test_a_recheck_of_the_same_answers_commits_no_bar_and_no_ledger,
    test_a_revision_replaces_the_bar_and_keeps_the_old_one,
    test_a_second_run_asks_for_nothing_and_commits_nothing,
    test_an_update_brings_every_stream_up_to_now,
    test_every_bar_of_the_tape_is_stored_once_or_refused_with_a_reason,
    test_origins_never_mix,
    test_the_ledger_tiles_the_span_and_names_outage_and_quarantine,
)

__all__ = [
    "kernel",
    "tape",
    "test_a_body_older_than_the_look_back_is_kept_again",
    "test_a_recheck_of_the_same_answers_commits_no_bar_and_no_ledger",
    "test_a_revision_replaces_the_bar_and_keeps_the_old_one",
    "test_a_second_landing_makes_no_commit",
    "test_a_second_run_asks_for_nothing_and_commits_nothing",
    "test_an_equal_body_is_kept_once",
    "test_an_update_brings_every_stream_up_to_now",
    "test_every_bar_of_the_tape_is_stored_once_or_refused_with_a_reason",
    "test_every_body_comes_back_as_it_came",
    "test_origins_never_mix",
    "test_pages_of_one_batch_are_one_commit_in_order",
    "test_the_ledger_tiles_the_span_and_names_outage_and_quarantine",
]


@pytest.fixture
def lake_root(s3_root):
    return s3_root
