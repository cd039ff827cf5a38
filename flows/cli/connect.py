"""Who answers a run: the venue itself, or a replay exchange that is started for it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from contracts.errors import RequestError, VenueUnavailableError
from contracts.time import SystemClock, iso, parse_time
from flows.replay.clock import ReplayClock
from lake.root import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contracts.time import Clock
    from flows.cli.options import Replaying

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Connection:
    """Where a run asks, and what that says of its data.

    Attributes:
        base_url: Address of a replay exchange; None is the venue itself.
        clock: The two clocks of the run; a replay's known clock is the exchange's.
        origin: What the lake's data comes from.
    """

    base_url: str | None
    clock: Clock
    origin: str


@contextmanager
def connected(replaying: Replaying, *, limits: bool = True) -> Iterator[Connection]:
    """Yield who answers; a replay exchange that was started for it ends with it.

    Raises:
        TapeError: The tape cannot be replayed.
        RequestError: A clock is given and nothing is replayed.
        VenueUnavailableError: No replay exchange answers at the URL.
    """
    now = replaying.replay_now
    moment = None if now is None else iso(parse_time(now, name="--replay-now"))
    if replaying.replay is None:
        _refuse_clock(now)
        yield Connection(None, SystemClock(), LIVE)
    elif _is_url(replaying.replay):
        base_url = replaying.replay.rstrip("/")
        if moment is not None:
            _control(base_url, "clock", {"set": moment})
        yield _connection(base_url)
    else:
        tape = checked_tape(replaying.replay)
        from flows.replay.process import run_in_process

        # The exchange starts in a process of its own; meanwhile this one loads the client.
        loading = threading.Thread(target=import_module, args=("flows.venues.client",))
        loading.start()
        try:
            with run_in_process(tape, now=moment, limits=limits) as base_url:
                yield _connection(base_url)
        finally:
            loading.join()


def origin_of(replaying: Replaying) -> str:
    """Return the origin that the data of a run would have."""
    if replaying.replay is None:
        _refuse_clock(replaying.replay_now)
        return LIVE
    if _is_url(replaying.replay):
        return str(_control(replaying.replay.rstrip("/"), "")["origin"])
    from flows.replay.process import open_tape

    return open_tape(checked_tape(replaying.replay)).origin


def _refuse_clock(now: str | None) -> None:
    if now is not None:
        raise RequestError(
            "--replay-now sets the clock of a replay exchange, and none is asked",
            remedy="Name a tape with --replay",
        )


def _is_url(text: str) -> bool:
    return text.startswith("http://")


def checked_tape(text: str) -> str:
    """Return the tape's folder; a tape that cannot be opened is refused before anything runs."""
    from flows.replay.process import GENERATED, open_tape

    if text == GENERATED:
        return text
    path = Path(text).expanduser()
    folder = path.parent if path.name == "tape.toml" else path
    open_tape(folder)
    return str(folder)


def _connection(base_url: str) -> Connection:
    told = _control(base_url, "clock")
    clock = ReplayClock(parse_time(str(told["known"])))
    if told["running"]:
        clock.run(float(told["speed"]))
    return Connection(base_url, clock, str(_control(base_url, "")["origin"]))


def _control(base_url: str, what: str, content: dict[str, str] | None = None) -> dict[str, Any]:
    address = urlsplit(base_url)
    link = HTTPConnection(address.hostname or "", address.port or 80, timeout=_TIMEOUT_SECONDS)
    try:
        method = "GET" if content is None else "POST"
        body = None if content is None else json.dumps(content)
        link.request(method, f"{address.path}/_replay/{what}", body=body)
        answer = link.getresponse()
        told = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        raise VenueUnavailableError(
            f"No replay exchange answers at {base_url}: {str(error) or type(error).__name__}",
            remedy="Start one with `lake replay`, or name a tape with --replay",
        ) from error
    finally:
        link.close()
    if answer.status != 200:
        raise RequestError(str(told.get("message", told)).rstrip("."))
    return dict(told)
