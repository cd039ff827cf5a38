"""One file of a tape: its bars as a typed frame, or a TapeError that names file and column."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import polars as pl
from polars.exceptions import PolarsError

from contracts.errors import TapeError
from contracts.spec import Time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_T = TypeVar("_T")

REQUIRED = ("open_time", "open", "high", "low", "close", "volume")
OPTIONAL = ("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
BAR_COLUMNS = (*REQUIRED, *OPTIONAL)
BAR_SCHEMA: dict[str, pl.DataType] = {
    name: Time if name == "open_time" else pl.Int64() if name == "trade_count" else pl.Float64()
    for name in BAR_COLUMNS
}

_TEXT_TIME = r"^\d{4}-\d{2}-\d{2}"
_INTEGER = r"^\s*-?\d+\s*$"
_MILLIS = (10**11, 10**14)


def file_kind(path: Path) -> str:
    """Return ``ipc``, ``parquet`` or ``csv``.

    Raises:
        TapeError: The name ends in none of the known endings.
    """
    endings = {".feather": "ipc", ".arrow": "ipc", ".ipc": "ipc", ".parquet": "parquet"}
    endings |= {".pq": "parquet", ".csv": "csv", ".csv.gz": "csv", ".csv.zst": "csv"}
    for ending, kind in endings.items():
        if path.name.lower().endswith(ending):
            return kind
    raise TapeError(
        f"{path} is of an unknown file type",
        remedy=f"A tape's files end in {', '.join(endings)}",
        file=str(path),
    )


def bar_columns(path: Path, names: Mapping[str, str]) -> dict[str, str]:
    """Return tape name to file name for the columns that the file holds; reads no rows.

    Args:
        path: The file.
        names: Tape name to file name, where they differ.

    Raises:
        TapeError: The file is missing, unreadable or of an unknown type, a required or a
            named column is missing, or ``names`` names a column that bars do not have.
    """
    kind = file_kind(path)
    if not path.is_file():
        raise TapeError(
            f"{path} is missing", remedy="Put the file there or mend tape.toml", file=str(path)
        )
    unknown = sorted(set(names) - set(BAR_COLUMNS))
    if unknown:
        raise TapeError(
            f"columns of {path} name {unknown[0]!r}, which bars do not have",
            remedy=f"Bars have {', '.join(BAR_COLUMNS)}",
            file=str(path),
            column=unknown[0],
        )
    held = _guarded(path, lambda: _held(path, kind))
    found: dict[str, str] = {}
    for name in BAR_COLUMNS:
        source = names.get(name, name)
        if source in held:
            found[name] = source
        elif name in REQUIRED or name in names:
            raise TapeError(
                f"{path} has no column {source!r} for {name}",
                remedy=f"It has {', '.join(held)}; name the right one in `columns`",
                file=str(path),
                column=source,
            )
    return found


def read_bars(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Return the bars of a file, in the file's order, under tape names and in tape types.

    Raises:
        TapeError: A column has the wrong type, or a required one has nulls.
    """
    kind = file_kind(path)
    raw = _guarded(path, lambda: _read(path, kind, list(dict.fromkeys(columns.values()))))
    typed = [
        _typed(raw.get_column(source), name, path).alias(name) for name, source in columns.items()
    ]
    frame = pl.DataFrame(typed)
    for name in REQUIRED:
        nulls = frame.get_column(name).null_count()
        if nulls:
            raise TapeError(
                f"{path} has {nulls} nulls in {columns[name]!r} ({name})",
                remedy="Every bar needs its time, four prices and volume: drop or mend the rows",
                file=str(path),
                column=columns[name],
            )
    return frame


def _held(path: Path, kind: str) -> list[str]:
    if kind == "ipc":
        return list(pl.read_ipc_schema(path))
    if kind == "parquet":
        return list(pl.read_parquet_schema(path))
    return pl.read_csv(path, n_rows=0, infer_schema=False).columns


def _read(path: Path, kind: str, columns: list[str]) -> pl.DataFrame:
    if kind == "ipc":
        return pl.read_ipc(path, columns=columns)
    if kind == "parquet":
        return pl.read_parquet(path, columns=columns)
    return pl.read_csv(path, columns=columns, infer_schema=False)


def _guarded(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (PolarsError, OSError, ValueError, UnicodeError) as error:
        raise TapeError(
            f"{path} cannot be read as {file_kind(path)}: {error}",
            remedy="The file is torn or of another type than its ending says",
            file=str(path),
        ) from error


def _typed(values: pl.Series, name: str, path: Path) -> pl.Series:
    try:
        if name == "open_time":
            return _times(values)
        if name == "trade_count":
            return _counts(values)
        return _numbers(values)
    except (PolarsError, ValueError, TypeError) as error:
        raise TapeError(
            f"{path} has {values.dtype} in {values.name!r}, which does not read as {name}",
            remedy="Times are datetimes in UTC or integers in ms, all else is numbers",
            file=str(path),
            column=values.name,
        ) from error


def _times(values: pl.Series) -> pl.Series:
    """Return UTC microseconds; a naive datetime is UTC, an integer counts ms."""
    dtype = values.dtype
    if dtype == pl.String:
        present = values.drop_nulls()
        if present.str.contains(_INTEGER).all():
            values = values.str.strip_chars().cast(pl.Int64)
        elif present.str.contains(_TEXT_TIME).all():
            values = values.str.replace(r"Z$", "+00:00")
            zoned = bool(present.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$").any())
            zone = "UTC" if zoned else None
            return _times(values.str.to_datetime(time_unit="us", time_zone=zone))
        else:
            raise TypeError(dtype)
        dtype = values.dtype
    if dtype.is_integer():
        if not values.drop_nulls().is_between(*_MILLIS).all():
            raise ValueError(dtype)  # seconds, microseconds or no times at all
        return values.cast(pl.Int64).cast(pl.Datetime("ms", "UTC")).cast(Time)
    if isinstance(dtype, pl.Datetime):
        zoneless = dtype.time_zone is None
        utc = values.dt.replace_time_zone("UTC") if zoneless else values.dt.convert_time_zone("UTC")
        return utc.cast(Time)
    if dtype == pl.Date:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise TypeError(dtype)


def _numbers(values: pl.Series) -> pl.Series:
    """Return floats; what is not a finite number becomes null."""
    dtype = values.dtype
    if dtype == pl.Null:
        return values.cast(pl.Float64)
    if dtype.is_decimal():  # by way of text: the direct cast is not correctly rounded
        values = values.cast(pl.String)
    elif not (dtype.is_numeric() or dtype == pl.String):
        raise TypeError(dtype)
    if values.dtype == pl.String:
        values = values.str.strip_chars().replace("", None)
    floats = values.cast(pl.Float64)
    return floats.set(~floats.is_finite(), None)


def _counts(values: pl.Series) -> pl.Series:
    if values.dtype.is_integer():
        return values.cast(pl.Int64)
    floats = _numbers(values)
    if not (floats.drop_nulls() == floats.drop_nulls().floor()).all():
        raise TypeError(values.dtype)
    return floats.cast(pl.Int64)
