"""The tree of commands."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from cyclopts import App, Parameter

from flows.cli import (
    demo,
    doctor,
    ingest,
    lock,
    maintain,
    pin_changes,
    pins,
    read,
    replay,
    run,
    schema,
    snapshot_copy,
    snapshot_diff,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = """A point-in-time lakehouse for crypto market data.

Fetch bars from a venue, keep every revision, pin a state of all tables, read it back.
`lake demo` shows all of it in half a minute, without a network.
"""
_AFTER = "`lake COMMAND --help` explains a command with an example."


_COMMANDS: tuple[Callable[..., int], ...] = (
    demo.demo,
    read.init,
    ingest.backfill,
    ingest.update,
    ingest.conform,
    read.bars,
    read.instruments,
    read.ledger,
    read.scan,
    schema.schema,
    replay.replay,
    maintain.maintain,
    doctor.doctor,
    lock.lock,
    run.run,
)
_PINS: dict[str, Callable[..., int]] = {
    "create": pins.create,
    "list": pins.list_snapshots,
    "show": pins.show,
    "label": pins.label,
    "verify": pins.verify,
    "diff": snapshot_diff.diff,
    "export": snapshot_copy.export,
    "import": snapshot_copy.import_,
    "pin": pin_changes.pin,
    "unpin": pin_changes.unpin,
}


@cache
def build_app() -> App:
    """Return the app with all commands."""
    app = App(
        name="lake",
        help=_HELP,
        help_epilogue=_AFTER,
        help_format="rst",
        version=_version,
        default_parameter=Parameter(negative="", show_default=_worth_showing),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for command in _COMMANDS:
        app.command(command)
    snapshot = App(name="snapshot", help="Pin the state of all tables, list pins, check them.")
    for name, command in _PINS.items():
        snapshot.command(command, name=name)
    app.command(snapshot)
    return app


def _version() -> str:
    try:
        return version("tidemark")
    except PackageNotFoundError:
        return "0"


def _worth_showing(value: object) -> str | None:
    return None if value is None or value is False else str(value)
