"""Land: keep what the venue answered, verbatim, before anybody interprets it.

Takes responses, gives rows of bronze.responses; one commit per call. Answers that were no
use (an error page, a cut body) are landed with the next call.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from contracts.tables import RESPONSES
from lake import landing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.response import Response
    from flows.work import Work


async def land(work: Work, responses: Sequence[Response]) -> int:
    """Store responses of one venue; return the number of rows added."""
    failed, work.failed_responses[:] = list(work.failed_responses), []
    every = [*failed, *responses]
    if not every:
        return 0
    table = work.table(RESPONSES.name)
    done = await asyncio.to_thread(landing.land, table, every, run_id=work.run_id)
    return done.rows
