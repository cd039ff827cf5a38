"""``python -m flows.replay TAPE``: the replay exchange in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING

from contracts.errors import TidemarkError
from contracts.time import iso, parse_time
from flows.replay.process import GENERATED, open_tape, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.replay.server import ReplayExchange


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a tape; the first line on stdout is JSON with base_url, origin and clock."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.replay", description="Serve a tape as its venues would."
    )
    parser.add_argument("tape", nargs="?", default=GENERATED, help="a folder, or 'generated'")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--now", help="the clock at first; default: last close + 1 minute")
    parser.add_argument("--speed", type=float, help="let the clock run this fast")
    parser.add_argument("--no-limits", action="store_true", help="never answer 429 or 418")
    parser.add_argument("--seed", type=int, default=7, help="of the generated tape")
    parser.add_argument("--days", type=int, default=4, help="of the generated tape")
    parser.add_argument("--stop-with-stdin", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    try:
        asyncio.run(
            serve(
                open_tape(options.tape, seed=options.seed, days=options.days),
                port=options.port,
                now=None if options.now is None else parse_time(options.now, name="--now"),
                speed=options.speed,
                limits=not options.no_limits,
                on_listening=_announce,
                stop_with_stdin=options.stop_with_stdin,
            )
        )
    except TidemarkError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _announce(exchange: ReplayExchange) -> None:
    line = {
        "base_url": exchange.base_url,
        "origin": exchange.tape.origin,
        "known": iso(exchange.clock.known()),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
