import re

import polars as pl
import pytest
from deltalake import DeltaTable

import contracts.names
import contracts.spec
import contracts.time
import lake.tables
import quality.audit
import quality.breaker
from contracts import dictionary
from contracts.errors import InvariantError, all_errors
from contracts.tables import BARS, QUARANTINE, RUNS, TABLES, State
from contracts.time import SystemClock
from lake.store import Store


@pytest.mark.parametrize("page", ["tables", "errors"])
def test_the_page_is_what_the_contracts_render(project, page):
    rendered = dictionary.dictionary() if page == "tables" else dictionary.errors()
    found = (project / "docs" / f"{page}.md").read_text()
    assert found == rendered, f"run `make docs`: docs/{page}.md differs from the contracts"


def test_the_dictionary_names_every_table_and_column():
    text = dictionary.dictionary()
    for name, spec in TABLES.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        for column in spec.columns:
            assert f"| `{column.name}` | " in section
            assert column.meaning in section
        assert ", ".join(f"`{part}`" for part in spec.key) in section


def test_the_page_of_errors_names_every_error():
    text = dictionary.errors()
    for kind in all_errors():
        line = next(line for line in text.splitlines() if f"| `{kind.code}` |" in line)
        retry = "yes" if kind.retryable else "no"
        facts = f"`{kind.__name__}` | {kind.exit_code} | {kind.http_status} | {retry} |"
        assert facts in line


def test_ddl_tells_types_nulls_comments_and_layout():
    text = dictionary.ddl(BARS)
    assert "  open_time TIMESTAMP NOT NULL COMMENT 'Start of the bar;" in text
    assert "  trade_count BIGINT COMMENT" in text
    assert "the source\\'s publication lag" in text
    assert "PARTITIONED BY (venue, timeframe, year)" in text
    assert "'delta.dataSkippingStatsColumns' = 'instrument_id,open_time,known_from'" in text
    assert "reasons ARRAY<STRING> NOT NULL" in dictionary.ddl(QUARANTINE)
    for spec in TABLES.values():
        assert dictionary.ddl(spec).count("\n  ") == len(spec.columns) + 8
    assert "PARTITIONED BY (month)" in dictionary.ddl(RUNS)


def test_ddl_creates_tables_as_the_writer_does(tmp_path):
    lake.tables.Table(Store(tmp_path, fsync=False), RUNS, SystemClock()).create()
    written = DeltaTable(str(tmp_path / RUNS.path)).metadata().configuration
    promised = dict(re.findall(r"'(delta\.\w+)' = '([^']*)'", dictionary.ddl(RUNS)))
    assert written == promised
    assert set(promised) > set(dictionary.TABLE_PROPERTIES)


def test_a_type_without_a_place_in_delta_is_our_bug():
    with pytest.raises(InvariantError, match="UInt64"):
        dictionary.sql_type(pl.UInt64())


def test_words_of_the_glossary_exist_in_the_code(project):
    text = (project / "docs" / "glossary.md").read_text()
    first_cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    words = {word for cell in first_cells for word in re.findall(r"`(\w+)`", cell)}
    assert len(words) > 20
    columns = {column.name for spec in TABLES.values() for column in spec.columns}
    modules = (contracts.names, contracts.spec, contracts.time, quality.audit, quality.breaker)
    classes = {name for module in modules for name in vars(module)} | {"State"}
    assert words <= columns | classes, sorted(words - columns - classes)


def test_the_glossary_names_the_states(project):
    text = (project / "docs" / "glossary.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| `State`"))
    assert all(state.value in line for state in State)
