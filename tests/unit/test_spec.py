import polars as pl
import pytest

from contracts.errors import ContractError, InvariantError, UnknownTableError
from contracts.spec import Column, Layer, TableSpec, Time
from contracts.tables import BARS, TABLES, State, table


def test_the_word_that_breaks_predicates_is_refused():
    with pytest.raises(InvariantError, match="interval"):
        Column("interval", pl.String(), "Length.")


@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Decimal(38, 18), pl.List(pl.String())])
def test_statistics_that_lie_are_refused(dtype):
    with pytest.raises(InvariantError, match="cannot be trusted"):
        Column("price", dtype, "Price.", statistics=True)


def test_a_table_uses_only_columns_that_it_declares_once():
    columns = (Column("a", pl.String(), "A."), Column("known_from", Time, "When."))
    TableSpec("ops.a", "an a", columns, ("a",), (), ("a",))
    with pytest.raises(InvariantError, match="undeclared"):
        TableSpec("ops.a", "an a", columns, ("b",), (), ("a",))
    with pytest.raises(InvariantError, match="doubled"):
        TableSpec("ops.a", "an a", (*columns, columns[0]), ("a",), (), ("a",))


@pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
def test_every_table_is_whole(spec):
    assert spec.layer in Layer
    assert spec.path == spec.name.replace(".", "/")
    assert list(spec.file_schema) == [n for n in spec.schema if n not in spec.partition_by]
    assert not set(spec.statistics_columns) & set(spec.partition_by)
    assert spec.empty().schema == spec.schema
    assert all(c.meaning.endswith(".") and c.meaning[0].strip() for c in spec.columns)
    nullable = {c.name for c in spec.columns if c.nullable}
    assert not nullable & {*spec.key, *spec.partition_by}
    assert table(spec.name) is spec


def test_an_unknown_table_is_told_the_nearest():
    with pytest.raises(UnknownTableError, match=r"Did you mean silver\.bars"):
        table("silver.bar")


def test_check_schema_names_every_fault():
    assert BARS.check_schema(BARS.empty()).is_empty()
    broken = BARS.empty().drop("close").with_columns(pl.col("open").cast(pl.Float32), x=1)
    with pytest.raises(ContractError) as caught:
        BARS.check_schema(broken)
    message = str(caught.value)
    for fault in ("open is Float32, not Float64", "close is missing", "x is not declared"):
        assert fault in message
    with pytest.raises(ContractError, match="out of order"):
        BARS.check_schema(BARS.empty().select(reversed(BARS.schema)))


def test_states_rank_in_the_order_of_their_list():
    assert State.UNFETCHED.rank < State.MISSING.rank < State.PRESENT.rank
