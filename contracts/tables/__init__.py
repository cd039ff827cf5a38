"""The tables of the lake, each declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.errors import UnknownTableError
from contracts.names import suggest
from contracts.tables.audits import AUDITS
from contracts.tables.bars import BAR_REVISIONS, BARS
from contracts.tables.deletions import DELETIONS
from contracts.tables.instruments import INSTRUMENTS
from contracts.tables.ledger import LEDGER, State
from contracts.tables.quarantine import QUARANTINE
from contracts.tables.responses import RESPONSES
from contracts.tables.runs import RUNS

if TYPE_CHECKING:
    from contracts.spec import TableSpec

__all__ = [
    "AUDITS",
    "BARS",
    "BAR_REVISIONS",
    "DELETIONS",
    "INSTRUMENTS",
    "LEDGER",
    "QUARANTINE",
    "RESPONSES",
    "RUNS",
    "TABLES",
    "State",
    "table",
]

# In the order of the path: writers commit in this order, readers resolve versions in reverse.
TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        RESPONSES,
        QUARANTINE,
        AUDITS,
        INSTRUMENTS,
        BAR_REVISIONS,
        BARS,
        LEDGER,
        DELETIONS,
        RUNS,
    )
}


def table(name: str) -> TableSpec:
    """Return the declaration of a table.

    Raises:
        UnknownTableError: No such table; the nearest names are offered.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise UnknownTableError(
            f"{name!r} is not a table", remedy=suggest(name, TABLES), table=name
        ) from None
