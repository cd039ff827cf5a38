"""A replay exchange in the foreground, and one in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import TapeError
from contracts.names import MarketType, Venue
from flows.replay.clock import ReplayClock
from flows.replay.generated import GeneratedTape
from flows.replay.server import ReplayExchange
from flows.replay.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

GENERATED = "generated"

_STOP_SECONDS = 10.0


def open_tape(tape: str | Path, *, seed: int = 7, days: int = 4) -> Tape:
    """Return the tape in a folder, or the generated one for ``generated``.

    Raises:
        TapeError: The folder holds no tape that can be replayed.
    """
    if str(tape) == GENERATED:
        return GeneratedTape(seed, days=days)
    return Tape.load(Path(tape))


async def serve(
    tape: Tape,
    *,
    port: int = 0,
    now: datetime | None = None,
    speed: float | None = None,
    limits: bool = True,
    on_listening: Callable[[ReplayExchange], None] | None = None,
    stop_with_stdin: bool = False,
) -> None:
    """Serve a tape until SIGINT or SIGTERM, or, with ``stop_with_stdin``, until stdin closes.

    Args:
        tape: What the venues answer with.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        now: What the clock shows at first; by default a minute after the last close.
        speed: Replayed seconds per real one; None lets the clock stand.
        limits: Whether weights are enforced.
        on_listening: Called once when requests are taken.
        stop_with_stdin: For a child process: the server ends with its parent.
    """
    clock = ReplayClock.at_end_of(tape, Venue.BINANCE, MarketType.SPOT)
    if now is not None:
        clock.set(now)
    if speed is not None:
        clock.run(speed)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopped.set)
    if stop_with_stdin:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    try:
        async with ReplayExchange(tape, clock=clock, port=port, limits=limits) as exchange:
            if on_listening is not None:
                on_listening(exchange)
            await stopped.wait()
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)
        if stop_with_stdin:
            loop.remove_reader(sys.stdin.fileno())


@contextlib.contextmanager
def run_in_process(
    tape: str | Path = GENERATED,
    *,
    port: int = 0,
    now: str | None = None,
    speed: float | None = None,
    limits: bool = True,
    seed: int = 7,
    days: int = 4,
    start_seconds: float = 60.0,
) -> Iterator[str]:
    """Run a replay exchange in a child process and yield its base_url.

    Args:
        tape: A folder, or ``generated``.
        port: TCP port; 0 takes a free one.
        now: What the clock shows at first, ISO 8601.
        speed: Replayed seconds per real one; None lets the clock stand.
        limits: Whether weights are enforced.
        seed: Of the generated tape.
        days: Of the generated tape.
        start_seconds: How long the child may take to listen.

    Raises:
        TapeError: The child did not start; the message is its last line.
    """
    command = [sys.executable, "-m", "flows.replay", str(tape), "--port", str(port)]
    command += ["--seed", str(seed), "--days", str(days), "--stop-with-stdin"]
    command += ["--now", now] if now is not None else []
    command += ["--speed", str(speed)] if speed is not None else []
    command += [] if limits else ["--no-limits"]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as child:
        try:
            yield _announced_url(child, start_seconds)
        finally:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def _announced_url(child: subprocess.Popen[str], seconds: float) -> str:
    assert child.stdout is not None  # noqa: S101 - piped above
    assert child.stderr is not None  # noqa: S101 - piped above
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    line = child.stdout.readline() if ready else ""
    if line:
        return str(json.loads(line)["base_url"])
    child.terminate()
    complaint = child.stderr.read().strip().splitlines() or ["it said nothing"]
    raise TapeError(
        f"the replay exchange did not start: {complaint[-1]}",
        remedy="Serve the same tape with `lake replay` to see more",
    )
