"""``lake demo``: the whole path, shown.

Annotations are read when the program runs, so this module does without the future import.
"""

from typing import Annotated

from cyclopts import Parameter

DEMO_ROOT = "./demo-lake"


def demo(
    *,
    root: Annotated[str, Parameter(env_var=())] = DEMO_ROOT,
    verbose: bool = False,  # noqa: ARG001 - read at the entry point
    debug: Annotated[bool, Parameter(env_var="LAKE_DEBUG")] = False,  # noqa: ARG001 - as above
) -> int:
    """Show everything on the built-in tape, without a network, and check what is claimed.

    Backfill, kill and resume, the gap and the bad bar found, a snapshot, a revision, what
    was known when, verify, and a second run that writes nothing.

    Try: ``lake demo``

    Args:
        root: Where the demo lake is made; an earlier demo lake there is replaced.
        verbose: Log to stderr what happens in detail.
        debug: Show the traceback of an error.
    """
    from flows.demo import run_demo

    run_demo(root)
    return 0
