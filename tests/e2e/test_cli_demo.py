"""The demo as a user runs it, and what README and docs say, held to it."""

import logging
import re
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper

import pytest

import lake
from contracts.errors import LakeOriginError
from flows.cli import main
from flows.cli.app import build_app
from flows.cli.options import DEFAULT_ROOT
from flows.demo_stage import Stage
from flows.replay.generated import GeneratedTape
from lake.root import init_lake
from lake.settings import Settings
from lake.store import Store


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder in which the demo ran, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out, err = TextIOWrapper(BytesIO(), write_through=True), StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["demo"])
    root.handlers[:], root.level = handlers, level
    said = out.buffer.getvalue().decode()
    assert code == 0, err.getvalue() + said
    return folder, said


def test_the_demo_shows_each_step_and_ends_with_what_to_do_next(played):
    _, said = played
    steps = [
        "$ kill -9 ",
        "Killed with SIGKILL",
        "$ lake ledger --state missing quarantined",
        "$ lake snapshot create",
        "bars: 0 new, 2 revised,",
        "--known-at",
        "$ lake snapshot verify --deep",
        "nothing to ask",
        "No commit to any table",
    ]
    places = [said.index(step) for step in steps]
    assert places == sorted(places)
    assert "Try next:" in said[places[-1] :]
    assert "  lake backfill --symbols" in said[places[-1] :]


def test_the_demo_replaces_its_own_lake_and_nothing_else(tmp_path):
    origin = GeneratedTape().origin
    root = tmp_path / "demo-lake"
    init_lake(Store(root), origin=origin)
    Stage(str(root), origin=origin)
    assert not root.exists()
    init_lake(Store(root), origin="live")
    with pytest.raises(LakeOriginError, match="stays as it is"):
        Stage(str(root), origin=origin)
    assert (root / "lake.json").exists()
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("dear")
    with pytest.raises(LakeOriginError):
        Stage(str(notes), origin=origin)
    assert (notes / "thesis.txt").read_text() == "dear"


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_of_the_readme_runs_and_prints_what_it_shows(
    played, project, monkeypatch, capsys
):
    monkeypatch.chdir(played[0])
    readme = (project / "README.md").read_text()
    programs = blocks(readme, "python")
    assert len(programs) == 3
    shown = []
    for program in programs:
        exec(compile(program, "README.md", "exec"), {})
        shown.append(capsys.readouterr().out)
    assert blocks(readme, "text") == [shown[0]]
    assert shown[1].split()[2] == "0.010000000000000000"
    assert int(shown[2]) == lake.open("demo-lake").bars(
        "ETH-USDT-SPOT.BINANCE", timeframe="1h", known_at="2026-03-04T11:00Z"
    ).collect().height  # fmt: skip


def commands():
    app = build_app()
    for name in app:
        if not name.startswith("-"):
            inner = [each for each in app[name] if not each.startswith("-")]
            for each in inner:
                yield f"{name} {each}", app[name][each]
            if not inner:
                yield name, app[name]


def test_the_commands_are_those_that_the_project_promises():
    assert {name for name, _ in commands()} == {
        "demo", "init", "backfill", "update", "conform", "bars", "instruments", "ledger", "scan",
        "schema", "replay", "lock", "run",
        "snapshot create", "snapshot list", "snapshot show", "snapshot verify",
        "snapshot diff", "snapshot export", "snapshot import", "snapshot label",
        "snapshot pin", "snapshot unpin", "maintain", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_is_documented(name, project):
    page = (project / "docs" / "cli.md").read_text()
    titles_and_texts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:]
    sections = dict(zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True))
    assert f"lake {name}" in sections, "the command has no section in docs/cli.md"
    assert f"`lake {name.split()[0]}`" in (project / "README.md").read_text()
    shared = sections["Options of every command"]
    told = sections[f"lake {name}"]
    command = dict(commands())[name]
    assert "Try: ``lake " in (command.default_command.__doc__ or ""), "the help has no example"
    for argument in command.assemble_argument_collection(parse_docstring=True):
        for option in set(argument.names) - set(argument.negatives):
            if option.startswith("--"):
                assert f"`{option}`" in shared + told, f"{option} is not documented"
                assert argument.parameter.help, f"{option} has no help"


def test_every_setting_is_documented(project):
    page = (project / "docs" / "cli.md").read_text()
    for name, field in Settings.model_fields.items():
        row = f"| `LAKE_{name.upper()}` | `{str(field.default).lower()}` | {field.description} |"
        assert row.casefold() in page.casefold()
    assert Settings.model_fields["root"].default == DEFAULT_ROOT
    assert "`LAKE_DEBUG`" in page
