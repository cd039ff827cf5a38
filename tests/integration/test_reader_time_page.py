"""The worked example of docs/time.md, run from the page; every test it names exists."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from kernel_support import BTC, KNOWN, Kernel, Row

import lake
from contracts.errors import BeforeFirstKnowledgeError


@pytest.fixture
def example(project, lake_root):
    """Return the variables of the page's block after it was run."""
    page = (project / "docs" / "time.md").read_text()
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    kernel = Kernel(lake_root)
    names = {
        "lake": lake,
        "root": lake_root,
        "clock": kernel.clock,
        "publish": kernel.publish,
        "bars": lambda closes: [Row(minute, close) for minute, close in enumerate(closes)],
    }
    exec(compile(block, "docs/time.md", "exec"), names)
    return page, names


def test_the_page_s_answers_are_the_lake_s(example):
    page, names = example
    told = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", page, re.MULTILINE)
    assert [name for name, _ in told] == ["now", "then", "on_the_hour", "published", "history"]
    for name, closes in told:
        assert names[name]["close"].to_list() == [float(each) for each in closes.split(",")], name


def test_the_history_ends_where_the_page_says(example):
    _, names = example
    one = datetime(2026, 4, 1, 1, tzinfo=UTC)
    assert names["history"].rows() == [
        (100.0, KNOWN, None),
        (101.0, KNOWN, one),
        (150.0, one, None),
        (102.0, KNOWN, None),
        (103.0, one, None),
    ]


def test_the_page_quotes_the_error_as_it_is(example):
    page, names = example
    with pytest.raises(BeforeFirstKnowledgeError) as error:
        names["lk"].bars(BTC, timeframe="1m", known_at="2026-03-31")
    assert error.value.message in " ".join(page.split())
