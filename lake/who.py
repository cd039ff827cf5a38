"""Who is at the keyboard, for what a lake remembers of its users' decisions."""

from __future__ import annotations

import getpass


def user_name() -> str:
    """Return the name of the user whose process this is, ``unknown`` where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
