"""An additive hash of rows: the sum of a hash of each row.

The sum does not depend on the order of rows, nor on how they are spread over files, so a
table's logical hash is the sum over its files and compaction leaves it unchanged. It is
defined by this module alone and not by any library: equal rows give an equal hash under
every version of Polars. It finds accidents, not forgery; that is what the files' SHA-256
is for.

A row's hash is ``mix(sum over columns of fold(bits + salt) * factor)`` in 64-bit arithmetic,
where salt and factor come from the column's name, ``fold(x) = x xor (x >> 32)``, and a null
adds nothing. Floats count as their IEEE 754 bits, integers, dates and times as 64-bit
two's complement, texts as the first 8 bytes of their BLAKE2b, decimals as the text of their
value, lists as their elements joined with U+001F, bulky texts as their length. Two lanes
make 128 bits: the sum of the row hashes and the sum of ``mix`` of the row hashes.
"""

from __future__ import annotations

import hashlib
from functools import cache, reduce
from operator import add
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_U64 = pl.UInt64()
_MASK = (1 << 64) - 1
EMPTY = "0" * 32
_SMALL = 32_768


def frame_hash(frame: pl.DataFrame, *, bulky: Collection[str] = ()) -> str:
    """Return the hash of all rows of a frame.

    Args:
        frame: The rows.
        bulky: Text columns that count as their length in bytes, because the hash of their
            content stands in another column.

    Shape: any columns of any of the types that tables use; 32 hexadecimal digits back.
    """
    if frame.is_empty():
        return EMPTY
    readied = frame.select(
        column.str.len_bytes() if column.name in bulky else _hashable(column)
        for column in frame.iter_columns()
    )
    total = reduce(add, (_column(column) for column in readied.iter_columns()))
    rows = _mixed(_mixed(readied.lazy().select(first=total), "first"), "second", of="first")
    lanes = rows.sum().collect(engine="in-memory" if frame.height < _SMALL else "streaming")
    return f"{lanes['first'][0]:016x}{lanes['second'][0]:016x}"


def combine(hashes: Iterable[str]) -> str:
    """Return the hash of the rows of several frames from the hashes of each."""
    first = second = 0
    for text in hashes:
        first = (first + int(text[:16], 16)) & _MASK
        second = (second + int(text[16:], 16)) & _MASK
    return f"{first:016x}{second:016x}"


def text_bits(text: str) -> int:
    """Return the 64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@cache
def column_constants(name: str) -> tuple[int, int]:
    """Return the salt and the odd factor of a column."""
    digest = hashlib.blake2b(name.encode(), digest_size=16, person=b"tidemark row").digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1


def _hashable(column: pl.Series) -> pl.Series:
    """Return texts, and what counts as text, as 64-bit hashes; other columns as they are."""
    dtype = column.dtype
    if isinstance(dtype, pl.Decimal):
        column = column.cast(pl.String)
    elif isinstance(dtype, pl.List):
        column = column.list.join("\x1f")
    return _text_column(column) if column.dtype == pl.String else column


def _text_column(column: pl.Series) -> pl.Series:
    """Hash each distinct text once; sorted tables hold few of them, in long runs."""
    if len(column) < _SMALL // 8:
        known = {text: text_bits(text) for text in column.unique() if text is not None}
        texts = [known.get(text) for text in column.to_list()]
        return pl.Series(column.name, texts, dtype=_U64)
    runs = column.rle().struct.unnest()
    bits = {text: text_bits(text) for text in runs["value"].unique() if text is not None}
    hashed = pl.Series(column.name, [bits.get(text) for text in runs["value"]], dtype=_U64)
    if len(runs) == len(column):
        return hashed
    if len(runs) == 1:
        return pl.repeat(hashed[0], len(column), dtype=_U64, eager=True).alias(column.name)
    return hashed.repeat_by(runs["len"]).explode().alias(column.name)


def _column(series: pl.Series) -> pl.Expr:
    salt, factor = column_constants(series.name)
    salted = _bits(series) + pl.lit(salt, _U64)
    hashed = (salted ^ (salted // pl.lit(1 << 32, _U64))) * pl.lit(factor, _U64)
    return hashed.fill_null(pl.lit(0, _U64)) if series.null_count() else hashed


def _bits(series: pl.Series) -> pl.Expr:
    column, dtype = pl.col(series.name), series.dtype
    if dtype == pl.UInt64:
        return column
    if dtype == pl.Float64:
        return column.reinterpret(dtype=_U64)
    if isinstance(dtype, pl.Datetime):
        return column.to_physical().reinterpret(dtype=_U64)
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Date):
        physical = column.to_physical() if dtype == pl.Date else column
        return physical.cast(pl.Int64).reinterpret(dtype=_U64)
    raise InvariantError(f"column {series.name}: no row hash for {dtype}")


def _mixed(rows: pl.LazyFrame, name: str, *, of: str | None = None) -> pl.LazyFrame:
    """Add the mixed values of a column, step by step so that no expression is doubled."""
    value = pl.col(of or name)
    stirred = (value ^ (value // pl.lit(1 << 29, _U64))) * pl.lit(0xBF58476D1CE4E5B9, _U64)
    mixed = pl.col(name) ^ (pl.col(name) // pl.lit(1 << 32, _U64))
    return rows.with_columns(stirred.alias(name)).with_columns(mixed.alias(name))
