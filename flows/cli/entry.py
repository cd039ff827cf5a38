"""The entry point: parse, run, and turn whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING

from cyclopts import CycloptsError

from contracts.errors import RequestError, TidemarkError
from flows.cli.app import build_app
from flows.cli.run import split_script
from flows.cli.say import complain, say

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
BROKEN_PIPE = 141
BUG = 70
_FALSE = ("", "0", "false", "no", "off")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    ====  ==================================================================
    0     done
    2     asked wrongly, or a setting is wrong
    3     the data broke a promise, for instance a circuit breaker tripped
    4     the venue did not answer well
    5     the store failed
    70    a bug of Tidemark
    130   interrupted; the same command goes on where it stopped
    ====  ==================================================================
    """
    asked = split_script(list(sys.argv[1:] if arguments is None else arguments))
    own = asked[: asked.index("--")] if "--" in asked else asked
    debug = "--debug" in own or os.environ.get("LAKE_DEBUG", "").lower() not in _FALSE
    configure_logging(verbose="--verbose" in own)
    try:
        return _run(asked)
    except TidemarkError as error:
        _trace(shown=debug)
        complain(error)
        return error.exit_code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        say("interrupted: what was stored stays; run the same command again to go on")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door of the house
        _trace(shown=debug)
        say(
            f"error: unexpected {type(error).__name__}: {_one_line(error)}. This is a bug of "
            "Tidemark: report it with what the same command prints with --debug [invariant]"
        )
        return BUG


def _run(asked: list[str]) -> int:
    try:
        done = build_app()(asked, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join(["lake", *(error.command_chain or ())])
        raise RequestError(
            _one_line(error).rstrip("."), remedy=f"`{command} --help` shows how to ask"
        ) from error
    sys.stdout.flush()
    return done if isinstance(done, int) else 0


def configure_logging(*, verbose: bool) -> None:
    """Send the log to stderr: what happens in detail with ``verbose``, else failures only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(
        handlers=[handler], level=logging.INFO if verbose else logging.ERROR, force=True
    )


class _Formatter(logging.Formatter):
    """An event's short name, then its facts as ``key=value``."""

    _known = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        facts = (f"{key}={value}" for key, value in vars(record).items() if key not in self._known)
        return " ".join([super().format(record), *facts])


def _trace(*, shown: bool) -> None:
    if shown:
        traceback.print_exc()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _discard_stdout() -> None:
    """Keep the interpreter from complaining of the closed pipe when it flushes at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
