"""Lines for people, on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.errors import TidemarkError


def say(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def complain(error: TidemarkError) -> None:
    """Write an error as one line: message, remedy, code."""
    told = " ".join(str(error).split())
    say(f"error: {told if told.endswith(('.', '?', '!')) else told + '.'} [{error.code}]")
