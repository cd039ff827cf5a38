"""The page on architecture names what exists."""

from __future__ import annotations

import ast
import re

import pytest

import flows.fetch
import lake.layout
from contracts.spec import TableSpec
from contracts.tables import TABLES
from lake.settings import Settings

FOLDERS = "contracts|lake|quality|flows|tests|docs"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w/.]*)(?:::([\w.]+))?`")
LINKS = re.compile(r"\]\((\w+\.md)\)")
MOST_LINES = 200


@pytest.fixture(scope="module")
def page(project):
    return (project / "docs" / "architecture.md").read_text()


def names_in(path):
    """Return functions, classes, methods as ``Class.method``, and constants of a file."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if hasattr(each, "name"))
            found |= {f"{node.name}.{method.name}" for method in methods}
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        found |= {node.name} if hasattr(node, "name") else set()
    return found


def test_every_file_and_folder_exists(page, project):
    paths = {path for path, _ in NAMED.findall(page)}
    assert len(paths) > 40
    assert {path for path in paths if not (project / path).exists()} == set()


def test_every_function_class_and_test_exists(page, project):
    named = {(path, name) for path, name in NAMED.findall(page) if name}
    assert len(named) > 20
    gone = {(path, name) for path, name in named if name not in names_in(project / path)}
    assert gone == set()


def test_no_path_escapes_the_check(page):
    in_code = re.findall(r"`([^`\n]*\.py[^`\n]*)`", page)
    assert [text for text in in_code if not NAMED.fullmatch(f"`{text}`")] == ["path.py::name"]


def test_every_linked_page_exists(page, project):
    assert LINKS.findall(page)
    assert [name for name in LINKS.findall(page) if not (project / "docs" / name).exists()] == []


def test_every_setting_table_and_constant_exists(page):
    settings = set(re.findall(r"LAKE_[A-Z_]+", page))
    assert settings <= {f"LAKE_{name.upper()}" for name in Settings.model_fields}
    assert settings
    tables = set(re.findall(r"`((?:bronze|silver|gold|ops)\.\w+)`", page))
    assert tables == set(TABLES)
    for holder, name in (
        (lake.layout, "FAN_IN"),
        (lake.layout, "SEALED_BYTES"),
        (flows.fetch, "MOST_CONFIRMED"),
        (TableSpec, "tail_rows"),
        (TableSpec, "tail_bytes"),
        (TableSpec, "series_rows"),
    ):
        assert hasattr(holder, name)
        assert f"`{name}`" in page


def test_the_page_is_short(page):
    assert len(page.splitlines()) < MOST_LINES
