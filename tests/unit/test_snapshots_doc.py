"""Each of the twelve promises names tests, and the tests exist."""

from __future__ import annotations

import re

import pytest
from test_architecture_doc import NAMED, names_in

TWELVE = [
    "Identity", "Immutability", "One consistent cut", "Isolation", "Durability", "Loud failure",
    "Point-in-time honesty", "Code and contracts", "Quality travels", "Portability",
    "Deterministic reads", "Bounded cost",
]  # fmt: skip
PROMISE = re.compile(r"^\| (\d+) \| \*\*(.+?)\.\*\* .+ \| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def page(project):
    return (project / "docs" / "snapshots.md").read_text()


def test_there_are_twelve_promises_in_their_order(page):
    told = PROMISE.findall(page)
    assert [(int(number), name) for number, name, _ in told] == list(enumerate(TWELVE, 1))


def test_each_promise_names_a_test_and_nothing_else_as_proof(page):
    for _, name, proof in PROMISE.findall(page):
        for each in proof.split(", "):
            match = NAMED.fullmatch(each)
            assert match, f"{name}: {each}"
            assert match[2], f"{name}: {each} names a file, not a test"
            assert match[2].lower().startswith("test"), f"{name}: {each}"


def test_every_file_and_test_that_the_page_names_exists(page, project):
    named = NAMED.findall(page)
    assert len(named) > 25
    assert {path for path, _ in named if not (project / path).exists()} == set()
    gone = {(path, name) for path, name in named if name and name not in names_in(project / path)}
    assert gone == set()
