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
value, lists as their elements joined with U+001F. Two lanes make 128 bits: the sum of the
row hashes and the sum of ``mix`` of the row hashes.
"""

from __future__ import annotations

import hashlib
from functools import cache, reduce
from operator import add
from typing import TYPE_CHECKING

import polars as pl

from contracts.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Iterable

_U64 = pl.UInt64()
_MASK = (1 << 64) - 1
EMPTY = "0" * 32
_FEW = 8


def frame_hash(frame: pl.DataFrame) -> str:
    """Return the hash of all rows of a frame.

    Shape: any columns of any of the types that tables use; 32 hexadecimal digits back.
    """
    if frame.is_empty():
        return EMPTY
    total = reduce(add, (_column(frame[name]) for name in frame.columns))
    lanes = (
        frame.lazy()
        .select(row=_mix(total))
        .select(first=pl.col("row").sum(), second=_mix(pl.col("row")).sum())
        .collect(engine="streaming")
    )
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


def _column(series: pl.Series) -> pl.Expr:
    salt, factor = column_constants(series.name)
    bits = _bits(series)
    if isinstance(bits, int):
        salted_bits = (bits + salt) & _MASK
        return pl.lit(((salted_bits ^ (salted_bits >> 32)) * factor) & _MASK, _U64)
    salted = bits + pl.lit(salt, _U64)
    hashed = (salted ^ (salted // pl.lit(1 << 32, _U64))) * pl.lit(factor, _U64)
    return hashed.fill_null(pl.lit(0, _U64)) if series.null_count() else hashed


def _bits(series: pl.Series) -> pl.Expr | int:
    """Return the 64 bits of each value, or the ones that all values share."""
    column, dtype = pl.col(series.name), series.dtype
    if dtype == pl.Float64:
        return column.reinterpret(dtype=_U64)
    if isinstance(dtype, pl.Datetime):
        return column.to_physical().reinterpret(dtype=_U64)
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Date):
        physical = column.to_physical() if dtype == pl.Date else column
        return physical.cast(pl.Int64).reinterpret(dtype=_U64)
    if dtype == pl.String:
        return _text_bits(column, series)
    if isinstance(dtype, pl.Decimal):
        return _text_bits(column.cast(pl.String), series.cast(pl.String))
    if isinstance(dtype, pl.List):
        joined = column.list.join("\x1f")
        return _text_bits(joined, series.list.join("\x1f"))
    raise InvariantError(f"column {series.name}: no row hash for {dtype}")


def _text_bits(column: pl.Expr, series: pl.Series) -> pl.Expr | int:
    """Hash each distinct text once; sorted tables hold few of them, in long runs."""
    distinct = series.rle().struct.field("value").unique().drop_nulls()
    if distinct.is_empty():
        return pl.lit(None, _U64)
    bits = [text_bits(text) for text in distinct.to_list()]
    if len(bits) == 1 and not series.null_count():
        return bits[0]
    if len(bits) > _FEW:
        known = pl.Series(bits, dtype=_U64)
        return column.replace_strict(distinct, known, default=None, return_dtype=_U64)
    chosen: pl.Expr = pl.lit(None, _U64)
    for text, each in zip(distinct.to_list(), bits, strict=True):
        chosen = pl.when(column == pl.lit(text)).then(pl.lit(each, _U64)).otherwise(chosen)
    return chosen


def _mix(value: pl.Expr) -> pl.Expr:
    stirred = (value ^ (value // pl.lit(1 << 29, _U64))) * pl.lit(0xBF58476D1CE4E5B9, _U64)
    return stirred ^ (stirred // pl.lit(1 << 32, _U64))
