"""docs/lockfile.md, as a reader types it: locked, run again to equal figures, refused."""

import pytest
from console_support import blocks, play


@pytest.fixture(autouse=True)
def _as_a_shell_of_its_own(monkeypatch, tmp_path):
    for name in ("LAKE_LOCK", "LAKE_ROOT", "LAKE_ALLOW_ENGINE_DRIFT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_page_shows_what_happens(project, tmp_path, capfd):
    page = (project / "docs" / "lockfile.md").read_text()
    consoles = blocks(page, "console")
    reading, strategy = blocks(page, "python")
    assert len(consoles) == 4
    (tmp_path / "strategy.py").write_text(strategy)
    play(consoles[0], capfd)
    exec(compile(reading, "lockfile.md", "exec"), {})
    assert capfd.readouterr().out.split()[1] == "80"
    for console in consoles[1:]:
        play(console, capfd)
