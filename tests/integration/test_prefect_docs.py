"""docs/operations.md agrees with settings, deployments and pins."""

from __future__ import annotations

import tomllib

import pytest

from lake.settings import Settings


@pytest.fixture(scope="module")
def page(project):
    return (project / "docs" / "operations.md").read_text()


def test_every_setting_stands_on_the_page_with_its_default(page):
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if field.annotation is bool else field.default
        assert f"| `LAKE_{name.upper()}` | `{default}` | {field.description} |" in page


def test_every_pin_of_prefect_stands_on_the_page(page, project):
    told = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    names = ("prefect==", "fastapi>", "starlette<", "sqlalchemy<")
    pins = [pin for pin in told if pin.startswith(names)]
    assert len(pins) == len(names)
    assert [pin for pin in pins if f"| `{pin}` |" not in page] == []


def test_every_schedule_stands_on_the_page(page, project):
    lines = (project / "prefect.yaml").read_text().splitlines()
    crons = [line.split('"')[1] for line in lines if "cron:" in line]
    assert len(crons) == 3
    assert [cron for cron in crons if f"`{cron}`" not in page] == []
