"""``lake doctor``: is the lake sound, and what to do where it is not.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

import sys

from flows.cli.options import COMMON, OUTPUT, Common, Output
from flows.cli.say import say


def doctor(*, mend: bool = False, output: Output = OUTPUT, common: Common = COMMON) -> int:
    """Check the lake from top to bottom: tables, logs, files, snapshots, leases, clock, store.

    Ends with the exit code of the gravest finding. Rows and bytes are not read; `lake snapshot
    verify` does that.

    Try: ``lake doctor``

    Args:
        mend: Mend what can be mended without losing anything.
    """
    import polars as pl

    from contracts.time import SystemClock
    from flows.cli.output import emit
    from lake.doctor import NEEDS_YOU, Finding, examine, gravest
    from lake.settings import read_settings
    from lake.store import Store

    def told(finding: Finding) -> None:
        if sys.stderr.isatty():
            say(f"{finding.check}: {finding.verdict}")

    store = Store(common.root, fsync=read_settings().fsync)
    findings = examine(store, SystemClock(), mend=mend, on_finding=told)
    columns = ("check", "verdict", "found", "remedy", "code")
    rows = [tuple(getattr(each, name) for name in columns) for each in findings]
    if output.format == "table" and output.output is None:
        for check, verdict, found, remedy, _ in rows:
            line = f"{verdict:<9}  {check:<10}  {found}"
            sys.stdout.write(f"{line}. {remedy}.\n" if remedy else f"{line}\n")
    else:
        schema = {name: pl.String() for name in columns}
        emit(pl.DataFrame(rows, schema=schema, orient="row"), output)
    needing = [each for each in findings if each.verdict == NEEDS_YOU]
    say(f"{len(needing)} findings need you" if needing else "the lake is sound")
    return gravest(findings)
