"""What every step of a run is handed: tables, clock, settings, progress, and the run's id."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contracts.tables import LEDGER, RESPONSES
from contracts.time import SteppedClock, SystemClock
from lake.knowledge import newest_knowledge
from lake.locked import refuse_when_locked
from lake.root import LIVE, init_lake, read_lake, writable_lake
from lake.settings import Settings
from lake.sources import Tables
from lake.store import Store

if TYPE_CHECKING:
    from contracts.response import Response
    from contracts.time import Clock
    from lake.tables import Table

_log = logging.getLogger(__name__)


class Progress:
    """Hears how a run goes; the base class only writes to the log.

    Entry points derive from it: a bar on a terminal, plain lines elsewhere.
    """

    def plan(self, stream: str, pages: int) -> None:
        """Expect so many pages of a stream."""
        _log.debug("progress.plan", extra={"stream": stream, "pages": pages})

    def advance(self, stream: str, pages: int, rows: int) -> None:
        """Count pages that are stored for good; ``rows`` is the stream's sum so far."""
        _log.debug("progress.advance", extra={"stream": stream, "pages": pages, "rows": rows})

    def waiting(self, reason: str, seconds: float) -> None:
        """Say what the run waits for."""
        _log.info("progress.waiting", extra={"reason": reason, "seconds": seconds})

    def note(self, text: str) -> None:
        """Say something that a person should read."""
        _log.info("progress.note", extra={"note": text})


@dataclass
class Work:
    """One run on one lake.

    Attributes:
        tables: The lake's tables.
        clock: The two clocks.
        run_id: Identity of the run.
        settings: What the environment says.
        progress: Hears how it goes.
        failed_responses: Answers that were no use, waiting to be landed.
    """

    tables: Tables
    clock: Clock
    run_id: str
    settings: Settings
    progress: Progress
    failed_responses: list[Response] = field(default_factory=list)

    def table(self, name: str) -> Table:
        """Return a table of the lake."""
        return self.tables[name]

    @property
    def store(self) -> Store:
        """The lake's store."""
        return self.tables.store


def standing_clock(store: Store) -> Clock:
    """Return the clocks of a run that asks nobody.

    Time: on a replayed lake the known clock stands at the newest knowledge, so that a
    machine's clock never dates what a replay brought.

    Raises:
        LakeNotFoundError: There is no lake.
    """
    clock: Clock = SystemClock()
    if read_lake(store).origin == LIVE:
        return clock
    tables = Tables(store, clock)
    newest = [newest_knowledge(tables[name].head()) for name in (RESPONSES.name, LEDGER.name)]
    known = [moment for moment in newest if moment is not None]
    return SteppedClock(max(known)) if known else clock


def open_work(
    root: str,
    *,
    clock: Clock,
    origin: str | None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Work:
    """Open a lake for a run.

    Args:
        root: The lake.
        clock: The two clocks.
        origin: Where the data will come from; the lake is made when there is none. None
            opens a lake that exists, whatever its origin.
        settings: Read from the environment when None.
        progress: Silent when None.

    Raises:
        LakeOriginError: The lake holds data of another origin.
        LakeNotFoundError: There is no lake, and ``origin`` is None.
        LakeFormatError: The lake was written by a newer Tidemark.
    """
    refuse_when_locked(f"the newest state of {root}")
    settings = settings or Settings()
    store = Store(root, fsync=settings.fsync)
    if origin is None:
        writable_lake(store)
    else:
        init_lake(store, origin=origin)
    run_id = f"{clock.storage():%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    return Work(Tables(store, clock), clock, run_id, settings, progress or Progress())
