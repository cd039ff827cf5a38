"""docs/snapshots.md, as a reader types it: used, attacked, and told each time."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from console_support import blocks, plain, steps

from flows.cli import main

_NUMBER = re.compile(r"\b\d[\d,]{3,}\b(?!-)")
_TOKEN = re.compile(r"(?<=--confirm )(?!0{8})[0-9a-f]{8}")


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    """Return what runs a command in a folder of its own: exit code and lines.

    A plain ``lake`` command runs in this process, for a process of its own takes long to start.
    """
    for name in [name for name in os.environ if name.startswith("LAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKE_FSYNC", "false")
    monkeypatch.chdir(tmp_path)
    tools = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}

    def here(words):
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        capfd.readouterr()
        try:
            code = main(words)
        finally:
            root.handlers[:], root.level = handlers, level
        said = capfd.readouterr()
        return code, (said.out + said.err).replace(str(tmp_path), "/lakes").splitlines()

    def run(typed):
        if typed.startswith("lake ") and "|" not in typed:
            return here(shlex.split(typed)[1:])
        done = subprocess.run(
            ["bash", "-c", typed], cwd=tmp_path, env=environment, stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.replace(str(tmp_path), "/lakes").splitlines()

    return run


def told(line):
    """Return a line without ids, hashes and sizes, which other versions have otherwise."""
    return " ".join(_NUMBER.sub("NUMBER", plain(line)).split())


@pytest.mark.slow
def test_the_page_shows_what_happens(project, shell):
    page = (project / "docs" / "snapshots.md").read_text()
    code, token, sums = 0, "", set()
    ran = 0
    for console in blocks(page, "console"):
        for typed, shown in steps(console):
            if typed == "echo $?":
                assert shown == [str(code)]
                continue
            code, lines = shell(_TOKEN.sub(token, typed))
            ran += 1
            found = [told(line) for line in lines]
            missing = [line for line in shown if told(line) not in found]
            assert not missing, f"$ {typed}\n" + "\n".join(lines)
            assert (code != 0) == any(line.startswith("error: ") for line in lines) or (
                typed.startswith("timeout")
            ), f"$ {typed} ended with {code}"
            token = next((line.split()[1] for line in lines if line.startswith("token ")), token)
            sums |= {line for line in lines if typed.endswith("| sha256sum")}
    assert ran > 25
    assert len(sums) == 1, "a pinned read differed"
    assert sums.pop() in page
