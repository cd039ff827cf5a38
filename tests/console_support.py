"""Run the consoles of a page, and hold what they show to what is printed."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys

from flows.cli import main

# What differs from run to run: ids and hashes, times, folders, users.
_HASH = re.compile(r"(?<!\.)\b[0-9a-f]{8,64}\b")
_FOLDER = re.compile(r"(?<=of )/\S+?(?=,)")
_USER = re.compile(r"\bof \w+ \(")


def blocks(text, language):
    """Return the blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def steps(console):
    """Return each command of a console with the lines that are shown below it."""
    found = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def play(console, capfd):
    """Type each command; every line that is shown must be printed, in this order.

    A page may leave lines out. ``echo $?`` shows the exit code of the command before.
    """
    code = 0
    for typed, shown in steps(console):
        if typed == "echo $?":
            assert shown == [str(code)], f"exit code {code}"
            continue
        code, printed = _typed(typed, capfd)
        for lines in printed:
            places = [lines.index(plain(each)) for each in shown if plain(each) in lines]
            assert places == sorted(places)
        gone = [each for each in shown if not any(plain(each) in lines for lines in printed)]
        assert not gone, f"$ {typed}\n{printed}"


def plain(line):
    """Return a line without what differs from run to run."""
    return _USER.sub("of USER (", _FOLDER.sub("FOLDER", _HASH.sub("HASH", line))).rstrip()


def _typed(typed, capfd):
    """Return exit code, and the plain lines of stdout and stderr."""
    program, *words = shlex.split(typed)
    capfd.readouterr()
    if program == "lake":
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            code = main(words)
        finally:
            root.handlers[:], root.level = handlers, level
    else:
        assert program == "python"
        code = subprocess.run([sys.executable, *words], check=False).returncode
    said = capfd.readouterr()
    return code, [[plain(line) for line in text.splitlines()] for text in (said.out, said.err)]
