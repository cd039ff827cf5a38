"""``lake replay``: a replay exchange in the foreground.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from contracts.errors import RequestError, StoreUnavailableError
from flows.cli.options import COMMON, Common
from flows.cli.say import say

if TYPE_CHECKING:
    from flows.replay.server import ReplayExchange


def replay(
    tape: str = "generated",
    /,
    *,
    port: int = 0,
    now: str | None = None,
    speed: float | None = None,
    no_limits: bool = False,
    common: Common = COMMON,  # noqa: ARG001 - every command takes these
) -> int:
    """Answer as the venue would, from a tape, until interrupted.

    The first line on stdout is JSON with base_url, origin and clock; the URL goes to
    `lake backfill --replay`.

    Try: ``lake replay generated --port 8080 --now 2026-03-04T10:00Z --speed 60``

    Args:
        tape: The folder of a tape, or `generated` for the built-in one.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        now: What the clock shows at first; a minute after the last close when left out.
        speed: Replayed seconds per real one; the clock stands when left out.
        no_limits: Never answer 429 or 418.
    """
    from contracts.time import parse_time
    from flows.cli.connect import checked_tape
    from flows.replay.process import open_tape, serve

    if speed is not None and not 0 < speed < float("inf"):
        raise RequestError(
            f"--speed {speed} is not above zero", remedy="Leave it out to let the clock stand"
        )
    opened = open_tape(checked_tape(tape))
    start = None if now is None else parse_time(now, name="--now")
    serving = serve(
        opened, port=port, now=start, speed=speed, limits=not no_limits, on_listening=_announce
    )
    try:
        asyncio.run(serving)
    except OSError as error:
        raise StoreUnavailableError(
            f"Port {port} cannot be had: {error.strerror or error}", remedy="Choose another --port"
        ) from error
    return 0


def _announce(exchange: "ReplayExchange") -> None:
    from contracts.time import iso

    told = {
        "base_url": exchange.base_url,
        "origin": exchange.tape.origin,
        "known": iso(exchange.clock.known()),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    say(f"replay: listening on {exchange.base_url}; Ctrl-C ends it")
