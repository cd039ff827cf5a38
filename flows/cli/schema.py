"""``lake schema``: what the tables promise.

Annotations are read when the program runs, so this module does without the future import.
Options that commands share are documented in ``flows.cli.options``.
"""
# ruff: noqa: D417

from typing import TYPE_CHECKING, Literal

from flows.cli.options import COMMON, Common, Output

if TYPE_CHECKING:
    import polars as pl

    from contracts.spec import TableSpec


def schema(
    table: str | None = None,
    /,
    *,
    format: Literal["ddl", "markdown", "table", "json", "csv", "parquet"] = "ddl",  # noqa: A002
    output: str | None = None,
    common: Common = COMMON,  # noqa: ARG001 - every command takes these
) -> int:
    """Print the declaration of one table, or of all.

    Try: ``lake schema silver.bars --format markdown``

    Args:
        table: For instance silver.bars; all tables when left out.
        format: DDL, the data dictionary in Markdown, or one row per column.
        output: Write to this file instead of stdout.
    """
    from contracts.dictionary import ddl, dictionary
    from contracts.tables import TABLES
    from contracts.tables import table as declared
    from flows.cli.output import emit, emit_text

    specs = list(TABLES.values()) if table is None else [declared(table)]
    if format == "ddl":
        emit_text("\n".join(map(ddl, specs)), output)
    elif format == "markdown":
        page = dictionary()
        emit_text(page if table is None else _section(page, table), output)
    else:
        emit(_columns(specs), Output(format, output))
    return 0


def _section(page: str, table: str) -> str:
    _, _, rest = page.partition(f"## {table}\n")
    return f"## {table}\n" + rest.partition("\n## ")[0].rstrip() + "\n"


def _columns(specs: "list[TableSpec]") -> "pl.DataFrame":
    import polars as pl

    from contracts.dictionary import sql_type

    rows = [
        {
            "table": spec.name,
            "column": column.name,
            "type": sql_type(column.dtype),
            "unit": column.unit,
            "nullable": column.nullable,
            "in_key": column.name in spec.key,
            "meaning": column.meaning,
        }
        for spec in specs
        for column in spec.columns
    ]
    return pl.DataFrame(rows)
