import polars as pl
import pytest

from quality.audit import ALL_GOOD, Audit, AuditResult, Verdict, judge
from quality.breaker import Breaker

POSITIVE = Audit("positive", blocking=False, checks="x is above zero", good=pl.col("x") > 0)
EVEN = Audit("even", blocking=True, checks="x is even", good=pl.col("x") % 2 == 0)


def test_every_failed_audit_of_a_row_is_a_reason():
    frame = pl.DataFrame({"x": [2, -1, None, 3, -2]})
    verdict = judge(frame, [POSITIVE, EVEN])
    assert verdict.good["x"].to_list() == [2]
    assert verdict.bad["x"].to_list() == [-1, None, 3, -2]
    assert verdict.bad["reasons"].to_list() == [
        ["positive", "even"], ["positive", "even"], ["even"], ["positive"],
    ]  # fmt: skip
    assert [(r.audit, r.rows, r.bad_rows) for r in verdict.results] == [
        ("positive", 5, 3), ("even", 5, 3),
    ]  # fmt: skip
    assert verdict.blocked
    assert verdict.bad_share == 0.8
    assert "x is above zero; first refused: x=-1" in verdict.results[0].detail


def test_a_sound_frame_is_handed_back_as_it_is():
    frame = pl.DataFrame({"x": [2, 4]})
    verdict = judge(frame, [POSITIVE, EVEN])
    assert verdict.good is frame
    assert verdict.bad.schema == {"x": pl.Int64, "reasons": pl.List(pl.String)}
    assert not verdict.blocked
    assert verdict.failed() == ()


def test_an_empty_frame_and_no_audits_are_sound():
    empty = pl.DataFrame(schema={"x": pl.Int64})
    assert judge(empty, [POSITIVE]).bad_share == 0.0
    assert judge(empty, [POSITIVE]).results[0].bad_rows == 0
    assert judge(pl.DataFrame({"x": [1]}), []).good.height == 1


def test_an_audit_settled_beforehand_refuses_no_row():
    settled = Audit("settled", blocking=True, checks="settled", good=ALL_GOOD)
    verdict = judge(pl.DataFrame({"x": [2, -2]}), [settled, POSITIVE])
    assert verdict.bad["reasons"].to_list() == [["positive"]]
    assert verdict.results[0].passed


def test_long_rows_are_cut_in_the_detail():
    verdict = judge(pl.DataFrame({"x": [-1], "y": ["z" * 1_000]}), [POSITIVE])
    assert verdict.results[0].detail.endswith("...")
    assert len(verdict.results[0].detail) < 500


def verdict_of(good, bad, *, blocking=False):
    frame = pl.DataFrame({"x": [1] * good + [-1] * bad})
    audit = Audit("positive", blocking=blocking, checks="x is above zero", good=pl.col("x") > 0)
    return judge(frame, [audit])


@pytest.mark.parametrize(
    ("good", "bad", "trips"),
    [
        (0, 0, False),
        (1_980, 20, False),  # exactly 1 %
        (1_979, 20, True),
        (1, 19, False),  # a share of 95 %, but too few
        (0, 20, True),
        (100_000, 1_000, False),
        (100_000, 1_100, True),
    ],
)
def test_the_breaker_needs_both_a_share_and_a_count(good, bad, trips):
    reason = Breaker().trips(verdict_of(good, bad))
    assert (reason is not None) == trips
    if trips:
        assert reason.startswith(f"{bad} of {good + bad} rows are bad")


def test_one_row_of_a_blocking_audit_trips():
    assert Breaker().trips(verdict_of(10_000, 1, blocking=True)) == (
        "positive failed for 1 of 10001 rows"
    )


def test_a_failed_audit_without_rows_trips_too():
    empty = pl.DataFrame({"x": []})
    schema = AuditResult("schema", blocking=True, rows=0, bad_rows=1, detail="no such column")
    assert Breaker(share=1.0).trips(Verdict(empty, empty, (schema,)))
