"""``lake maintain``: compact, checkpoint, delete what nobody needs; a dry run by default.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import asyncio

from contracts.errors import RequestError
from flows.cli.options import COMMON, OUTPUT, Common, Output
from flows.cli.say import say


def maintain(
    *,
    apply: bool = False,
    only: str | None = None,
    output: Output = OUTPUT,
    common: Common = COMMON,
) -> int:
    """Compact closed partitions, write checkpoints, delete files that nobody needs.

    Without --apply nothing is written: what would be done is printed, with files and bytes.
    What the newest version of a table or a pinned snapshot names is never deleted.

    Try: ``lake maintain`` and then ``lake maintain --apply``

    Args:
        apply: Do it; every deletion is noted in ops.deletions.
        only: Parts, with commas between: retention, compact, checkpoint, vacuum, leftovers.
    """
    from flows.cli.output import emit
    from flows.cli.shared import opened_for_repair
    from flows.maintain import MaintainRequest
    from flows.maintain import maintain as run
    from flows.work import Progress
    from lake.settings import read_settings

    class Said(Progress):
        def note(self, text: str) -> None:
            say(text)

    request = MaintainRequest(apply=apply, only=_parts(only))
    work = opened_for_repair(common.root, read_settings())
    if apply:
        work.progress = Said()
    report = asyncio.run(run(work, request))
    emit(report.frame(), output)
    for note in report.notes:
        say(note)
    if not report.actions:
        say("nothing to maintain")
    elif not apply:
        say("dry run: nothing was changed; `lake maintain --apply` does it")
    return 0


def _parts(only: str | None) -> tuple[str, ...]:
    from contracts.names import suggest
    from flows.maintain import PARTS

    if only is None:
        return PARTS
    asked = tuple(filter(None, (part.strip() for part in only.split(","))))
    for part in asked:
        if part not in PARTS:
            raise RequestError(
                f"{part!r} is not a part of the maintenance", remedy=suggest(part, PARTS)
            )
    if not asked:
        raise RequestError("--only names no part", remedy=suggest("", PARTS))
    return asked
