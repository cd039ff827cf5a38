"""``lake lock`` and ``lake run``, as they are typed."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from kernel_support import BTC, Kernel, Row, series

import lake
from contracts.tables import BARS
from flows.cli import main
from flows.cli.run import split_script
from lake.locks import every_lock, register, release
from lake.manifest import manifest_path

SCRIPT = """
import sys, lake
lk = lake.open()
print(lk.snapshot_id, lk.locked_bars().collect()["close"].sum(), *sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def _as_a_shell_of_its_own(monkeypatch, tmp_path):
    for name in ("LAKE_LOCK", "LAKE_ROOT", "LAKE_ALLOW_ENGINE_DRIFT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def kernel(lake_root):
    kernel = Kernel(lake_root)
    kernel.publish(series(range(30)))
    kernel.observe(0, 30)
    return kernel


@pytest.fixture
def words(kernel):
    """What locks the first twenty bars of the snapshot."""
    asked = ("--bars", BTC, "--timeframe", "1m", "--end", "2026-03-24T00:20Z")
    return ("lock", "--root", "lake", "--snapshot", kernel.snapshot().snapshot_id, *asked)


@pytest.fixture
def locked(words, capfd, tmp_path):
    assert main(list(words)) == 0
    capfd.readouterr()
    return tmp_path / "lake.lock"


def revise(kernel):
    kernel.step(hours=1)
    kernel.publish([Row(3, 250.0)])


def complaint(capfd, *asked):
    """Run a command that fails; return exit code, stdout, and what it said before its error."""
    code = main([str(word) for word in asked])
    said = capfd.readouterr()
    lines = said.err.splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in said.err
    return code, lines[-1], said.out, lines[:-1]


def test_a_lock_is_written_and_registered_in_the_lake(kernel, words, capfd):
    assert main([*words, "--format", "json", "--note", "the paper"]) == 0
    told = json.loads(capfd.readouterr().out)
    found = lake.open(lock="lake.lock").lock
    assert told == {
        "lock": "lake.lock",
        "lock_id": found.lock_id,
        "snapshot_id": found.snapshot_id,
        "root": str(kernel.root),
        "registered": True,
        "rows of bars": 20,
    }
    (held,) = every_lock(kernel.store)
    assert (held.lock_id, held.snapshot_id) == (found.lock_id, found.snapshot_id)
    assert held.note == "the paper"
    assert found.root == "lake"


def test_the_same_words_again_change_nothing_and_register_what_was_released(
    kernel, words, locked, capfd
):
    before = locked.read_bytes()
    assert main(["lock", "--release"]) == 0
    assert every_lock(kernel.store) == []
    assert main(list(words)) == 0
    assert locked.read_bytes() == before
    assert len(every_lock(kernel.store)) == 1
    assert "registered    True" in capfd.readouterr().out


def test_a_lock_that_pins_something_else_is_replaced_by_force_alone(kernel, words, locked, capfd):
    before = locked.read_bytes()
    more = (*words, "--columns", "close")
    code, line, out, _ = complaint(capfd, *more)
    assert (code, out) == (2, "")
    assert "there differ: queries. Write over it with --force" in line
    assert locked.read_bytes() == before
    assert main([*more, "--force"]) == 0
    assert "released: " in capfd.readouterr().err
    (held,) = every_lock(kernel.store)
    assert held.lock_id == lake.open(lock=locked).lock.lock_id
    assert lake.open(lock=locked).locked_bars().collect().columns == ["close"]


def test_a_broken_lock_is_replaced_by_force_alone(words, locked, capfd):
    locked.write_text("{}")
    code, line, _, _ = complaint(capfd, *words)
    assert code == 5
    assert line.endswith("[storage.checksum]")
    assert main([*words, "--force"]) == 0
    assert lake.open(lock=locked).locked_bars(verify=True).collect().height == 20


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((), "Make one with `lake snapshot create`"),
        (("--check", "--release"), "Choose one"),
        (("--lock-id", "0" * 64), "--release"),
        (("--verify",), "--check"),
        (("--snapshot", "2020-01-01-00000000"), "request.unknown_snapshot"),
        (("--snapshot", "{id}", "--timeframe", "1m"), "--bars"),
        (("--snapshot", "{id}", "--bars", BTC), "--timeframe 1h"),
        (("--snapshot", "{id}", "--bars", "ETH-USDT-SPOT.BINANCE", "--timeframe", "1m"), "lake ba"),
        (
            ("--snapshot", "{id}", "--bars", BTC, "--timeframe", "1m", "--start", "2027-01-01"),
            "no rows",
        ),
        (("--snapshot", "{id}", "--bars", BTC, "--timeframe", "1m", "--columns", "x"), "no column"),
        (("--check",), "There is no lock"),
        (("--release",), "There is no lock"),
        (("--release", "--lock-id", "0" * 64), "knows no lock"),
        (("--release", "--lock-id", "abc"), "too short"),
    ],
)
def test_what_is_asked_wrongly_writes_nothing(asked, told, kernel, capfd, tmp_path):
    snapshot_id = kernel.snapshot().snapshot_id
    asked = [word.format(id=snapshot_id) for word in asked]
    code, line, out, _ = complaint(capfd, "lock", "--root", "lake", *asked)
    assert (code, out) == (2, "")
    assert told in line
    assert not (tmp_path / "lake.lock").exists()
    assert every_lock(kernel.store) == []


def test_a_place_that_cannot_be_written_leaves_no_lock_registered(kernel, words, capfd):
    code, line, _, _ = complaint(capfd, *words, "--lock", "no/such/folder/lake.lock")
    assert code == 5
    assert line.endswith("[storage.unavailable]")
    assert every_lock(kernel.store) == []


def test_check_says_that_it_holds_or_what_changed(kernel, locked, capfd):
    revise(kernel)
    assert main(["lock", "--check", "--verify"]) == 0
    assert "registered    True" in capfd.readouterr().out
    (kernel.root / manifest_path(lake.open(lock=locked).snapshot_id)).unlink()
    code, line, out, _ = complaint(capfd, "lock", "--check", "--format", "json")
    assert code == 3
    assert line.startswith("error: 3 facts differ from what lake.lock pins.")
    assert line.endswith("[data.lock_drift]")
    told = json.loads(out)
    assert [fact["what"] for fact in told] == [
        "snapshot",
        "newest silver.bars",
        "answer of query bars",
    ]
    assert {fact["kind"] for fact in told} == {"data"}


@pytest.mark.usefixtures("locked")
def test_check_finds_files_that_are_gone_and_on_demand_a_flipped_byte(kernel, capfd):
    file = kernel.file_of(BARS)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # In the footer's length, which nobody reads of a file that is known.
    file.write_bytes(bytes(content))
    code, line, _, _ = complaint(capfd, "lock", "--check", "--verify")
    assert (code, file.name in line) == (5, True)
    file.unlink()
    code, line, _, _ = complaint(capfd, "lock", "--check")
    assert (code, file.name in line) == (5, True)
    assert line.endswith("[storage.snapshot_incomplete]")


def test_a_lock_whose_file_is_gone_is_released_by_its_id(kernel, locked, capfd):
    first = every_lock(kernel.store)[0].lock_id
    twin = first[:-1] + ("0" if first[-1] != "0" else "1")
    snapshot_id = lake.open(lock=locked).snapshot_id
    register(kernel.store, kernel.clock, snapshot_id=snapshot_id, lock_id=twin)
    locked.unlink()
    release = ("lock", "--release", "--root", "lake", "--lock-id")
    code, line, _, _ = complaint(capfd, *release, first[:12])
    assert (code, "2 locks begin with" in line) == (2, True)
    assert main([*release, first]) == 0
    assert main([*release, twin[:12]]) == 0
    assert every_lock(kernel.store) == []


def test_a_snapshot_that_is_locked_is_not_given_up_and_the_refusal_names_the_lock(locked, capfd):
    lock = lake.open(lock=locked).lock
    unpin = ("snapshot", "unpin", lock.snapshot_id, "--reason", "room", "--root", "lake")
    code, line, _, _ = complaint(capfd, *unpin)
    assert code == 2
    assert line.endswith("[request.snapshot_in_use]")
    assert lock.lock_id[:12] in line
    assert "lake.lock" in line


@pytest.fixture
def script(tmp_path):
    def write(text=SCRIPT):
        (tmp_path / "strategy.py").write_text(text)
        return "strategy.py"

    return write


def test_a_locked_run_reads_the_snapshot_and_passes_words_and_exit_code_on(
    kernel, locked, script, capfd
):
    asked = ("run", "--locked", script(SCRIPT + "sys.exit(7)"), "--fast", "3", "--verify")
    assert main(list(asked)) == 7
    before = capfd.readouterr()
    (line,) = before.err.splitlines()
    assert line.startswith(f"locked: snapshot {lake.open(lock=locked).snapshot_id} of ")
    assert before.out.endswith(" --fast 3 --verify\n")
    revise(kernel)
    assert main(list(asked)) == 7
    assert capfd.readouterr().out == before.out


def test_processes_of_a_locked_run_are_bound_as_well(kernel, locked, script, capfd, tmp_path):
    (tmp_path / "other").mkdir()
    text = """
import os, subprocess, sys, lake
os.chdir("other")
code = "import lake; lake.open({!r})"
first = subprocess.run([sys.executable, "-c", "import lake; print(lake.open().snapshot_id)"])
for root in (sys.argv[1], "elsewhere"):
    done = subprocess.run([sys.executable, "-c", code.format(root)], capture_output=True, text=True)
    print(done.returncode, done.stderr.strip().rpartition("\\n")[2].partition(" ")[0])
shown = subprocess.run([sys.executable, "-m", "flows.cli", "bars", "BTC-USDT-SPOT.BINANCE",
                        "--timeframe", "1m", "--format", "csv", "--columns", "close"],
                       capture_output=True, text=True)
print(max(map(float, shown.stdout.split()[1:])))
"""
    revise(kernel)
    assert main(["run", "--locked", script(text), str(kernel.root)]) == 0
    told = capfd.readouterr().out.splitlines()
    assert told == [
        lake.open(lock=locked).snapshot_id,
        "0 ",
        "1 contracts.errors.LockedRunError:",
        "100.79",
    ]


@pytest.mark.usefixtures("locked")
def test_a_script_that_raises_or_is_killed_is_told_apart(script, capfd):
    assert main(["run", "--locked", script("import lake; lake.open('nowhere')")]) == 1
    assert "LockedRunError" in capfd.readouterr().err
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert main(["run", "--locked", script(killed)]) == 128 + signal.SIGKILL


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("to_all", [True, False])
def test_an_interrupt_is_the_scripts_to_handle_and_so_is_a_request_to_end(to_all, script, tmp_path):
    text = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    pathlib.Path("began").touch()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(9)
"""
    asked = [sys.executable, "-m", "flows.cli", "run", "--locked", script(text)]
    child = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "began").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    if to_all:
        os.killpg(child.pid, signal.SIGINT)
    else:
        child.terminate()
    _, said = child.communicate(timeout=30)
    assert (child.returncode, "Traceback" in said) == (9, False)


def test_drift_is_refused_before_the_script_runs(kernel, locked, script, capfd, tmp_path):
    revise(kernel)
    (kernel.root / manifest_path(lake.open(lock=locked).snapshot_id)).unlink()
    asked = ("run", "--locked", script("import pathlib; pathlib.Path('ran').touch()"))
    code, line, out, before = complaint(capfd, *asked)
    assert (code, out) == (3, "")
    assert line.startswith("error: 3 facts differ from what lake.lock pins.")
    assert before[0].startswith("changed: snapshot: ")
    assert before[2].startswith("changed: answer of query bars: 20 rows with hash ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("locked")
def test_other_versions_are_refused_unless_they_are_allowed(script, capfd, monkeypatch):
    monkeypatch.setattr("lake.drift.packages", lambda: {"polars": "9.9.9"})
    code, line, _, before = complaint(capfd, "run", "--locked", script())
    assert code == 3
    assert "--allow-engine-drift" in line
    assert any("9.9.9 here" in each for each in before)
    assert main(["run", "--locked", "--allow-engine-drift", "strategy.py"]) == 0


@pytest.mark.usefixtures("locked")
def test_a_copy_is_run_against_and_read(kernel, script, capfd, tmp_path):
    copy = kernel.copy(tmp_path / "copy")
    asked = ("run", "--locked", "--root", "copy", script("import lake; print(lake.open().root)"))
    assert main(list(asked)) == 0
    out, told = capfd.readouterr()
    assert out.strip() == str(copy.root)
    assert f"reading {copy.root}, as --root or LAKE_ROOT says; the lock names {kernel.root}" in told
    assert main(["run", "--locked", "strategy.py"]) == 0
    assert "the lock names" not in capfd.readouterr().err


def test_a_run_says_that_its_lock_was_released(kernel, locked, script, capfd):
    assert main(["run", "--locked", script()]) == 0
    assert "not registered" not in capfd.readouterr().err
    assert release(kernel.store, lake.open(lock=locked).lock.lock_id)
    assert main(["run", "--locked", "strategy.py"]) == 0
    assert "not registered" in capfd.readouterr().err


@pytest.mark.usefixtures("locked")
def test_damage_is_found_before_the_script_runs(kernel, script, capfd):
    file = kernel.file_of(BARS)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    code, line, out, _ = complaint(capfd, "run", "--locked", script("print('ran')"))
    assert (code, out, file.name in line) == (5, "", True)
    file.unlink()
    code, line, out, _ = complaint(capfd, "run", "--locked", script())
    assert (code, out, file.name in line) == (5, "", True)


@pytest.mark.parametrize(
    ("asked", "exit_code", "told"),
    [
        (("run", "none.py"), 2, "There is no script"),
        (("run", "--locked", "strategy.py"), 2, "There is no lock"),
        (("run", "--verify", "strategy.py"), 2, "--locked"),
        (("run", "--lock", "lake.lock", "strategy.py"), 2, "--locked"),
        (("run", "--locked", "--lock", "edited.lock", "strategy.py"), 5, "storage.checksum"),
        (("run", "--lokced", "strategy.py"), 2, "--locked"),
        (("run",), 2, "lake run --help"),
    ],
)
def test_what_is_asked_wrongly_runs_nothing(asked, exit_code, told, script, capfd, tmp_path):
    script("print('ran')")
    (tmp_path / "edited.lock").write_text('{"format": 1}')
    code, line, out, _ = complaint(capfd, *asked)
    assert (code, out) == (exit_code, "")
    assert told in line


def test_a_run_that_is_not_locked_is_a_run(kernel, script, capfd):
    text = "import lake, sys; print(lake.open(sys.argv[1]).snapshot_id)"
    assert main(["run", script(text), str(kernel.root)]) == 0
    assert capfd.readouterr().out == "None\n"


@pytest.mark.parametrize(
    ("asked", "split"),
    [
        ("run s.py --verify", "run -- s.py --verify"),
        ("run --locked --root r s.py a -- b", "run --locked --root r -- s.py a -- b"),
        ("run --locked -- s.py --x", "run --locked -- s.py --x"),
        ("run --lock=a --locked s.py --lock b", "run --lock=a --locked -- s.py --lock b"),
        ("run --locked --help", "run --locked --help"),
        ("bars run --x", "bars run --x"),
    ],
)
def test_what_follows_the_script_goes_to_it(asked, split):
    assert split_script(asked.split()) == split.split()


def test_bars_of_a_lock_are_those_of_the_command_line(locked):
    snapshot_id = lake.open(lock=locked).snapshot_id
    asked = ("bars", BTC, "--root", "lake", "--timeframe", "1m", "--end", "2026-03-24T00:20Z")
    assert main([*asked, "--snapshot", snapshot_id, "--format", "parquet", "--output", "b"]) == 0
    assert pl.read_parquet("b").equals(lake.open(lock=locked).locked_bars(verify=True).collect())
