"""The example as its page shows it: locked, backtested, run again to equal figures, refused."""

import importlib.util
import shutil

import pytest
from console_support import blocks, play

CONSOLES = 3


@pytest.fixture(autouse=True)
def _as_a_shell_of_its_own(monkeypatch, tmp_path):
    for name in ("LAKE_LOCK", "LAKE_ROOT", "LAKE_ALLOW_ENGINE_DRIFT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_gives_the_figures_that_its_page_shows(project, tmp_path, capfd):
    if importlib.util.find_spec("backtesting") is None:
        pytest.skip("the dependency group `examples` is not installed")
    shutil.copy(project / "examples" / "crossover" / "strategy.py", tmp_path)
    consoles = blocks((project / "examples" / "README.md").read_text(), "console")
    assert len(consoles) == CONSOLES
    for console in consoles:
        play(console, capfd)


def test_the_page_shows_equal_figures_before_and_after_the_revision(project):
    first, second, _ = blocks((project / "examples" / "README.md").read_text(), "console")
    figures = ("bars  ", "trades", "final equity", "return", "drawdown")
    shown = [
        [line for line in text.splitlines() if line.startswith(figures)] for text in (first, second)
    ]
    assert len(shown[0]) == len(figures)
    assert shown[1][: len(figures)] == shown[0]
    assert shown[1][len(figures) :][-1] != shown[0][2]
