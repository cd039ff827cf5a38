"""The one door to pandera: a frame in, the same frame out, or a ``ContractError``.

A contract is checked in two steps: the exact schema, then the data, by a pandera model of
four vectorised frame-level checks (pandera's checks per column cost several times as much,
its ``unique`` twenty times). Models are built when first needed, once per table, so that
importing this module loads no pandera. Pandera's errors never leave it: pickling drops their
failure cases.

``bar_rules`` is shared with the audits of bars: a row that passes the audits keeps the
contract.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import polars as pl

from contracts.errors import ContractError, InvariantError, UnknownTimeframeError
from contracts.names import Timeframe
from contracts.tables import (
    AUDITS,
    BAR_REVISIONS,
    BARS,
    INSTRUMENTS,
    LEDGER,
    QUARANTINE,
    State,
)
from contracts.time import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from contracts.spec import TableSpec

    Rules = dict[str, pl.Expr]

# A venue's sums of floats and ours differ in their last digits.
_NOISE = 1e-9

_PRICES = ("open", "high", "low", "close")
_OPTIONAL_VOLUMES = ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def validate(spec: TableSpec, frame: pl.DataFrame, without: Sequence[str] = ()) -> pl.DataFrame:
    """Return ``frame`` if it keeps the contract of ``spec``.

    Args:
        spec: The table.
        frame: An eager frame; of a lazy one pandera would check the types alone.
        without: Columns that a staging frame does not have yet. Where one of them belongs
            to the key, uniqueness is not checked.

    Raises:
        ContractError: The schema differs, a required value is null, a float is not finite,
            a key stands twice, or a rule of the table is broken. ``failures`` maps failed
            checks to their number of bad rows, ``example`` is the first bad row.
    """
    if not isinstance(frame, pl.DataFrame):
        msg = f"{spec.name}: a {type(frame).__name__} cannot be validated"
        raise ContractError(msg, remedy="Collect it to a DataFrame first", table=spec.name)
    missing = tuple(without)
    _check_schema(spec, frame, missing)
    if not _passes(_model(spec, missing), frame):
        raise _contract_error(spec, frame, _promises(spec, missing))
    return frame


def is_unique(frame: pl.DataFrame, key: Sequence[str]) -> bool:
    """Tell whether no two rows of ``frame`` share their ``key``.

    A frame in strict order of its key takes one pass; another is hashed, and grouped only
    where hashes collide.
    """
    if frame.height < 2 or _strictly_ordered(frame, key):
        return True
    keys = frame.select(key)
    return keys.hash_rows().n_unique() == keys.height or keys.is_unique().all()


def bar_rules(frame: pl.DataFrame) -> Rules:
    """Return the rules of a bar by name, each an expression that is true for a good row.

    A null is good where the column allows it, otherwise the rule is null for its row.

    Args:
        frame: The bars; their timeframes and years shape the expressions.
    """
    open_, high, low, close = (pl.col(name) for name in _PRICES)
    full = {name for name in frame.columns if not frame[name].null_count()}
    volumes = (_or_null(_sound(name), full, name) for name in _OPTIONAL_VOLUMES)
    rules = {
        "price_positive": _all(
            (pl.col(name) > 0) & (pl.col(name) < float("inf")) for name in _PRICES
        ),
        "volume_sound": _all((_sound("volume"), *volumes)),
        "trade_count_sound": _or_null(pl.col("trade_count") >= 0, full, "trade_count"),
        "high_covers_body": (high >= open_) & (high >= close),
        "low_covers_body": (low <= open_) & (low <= close),
        "high_above_low": high >= low,
        "taker_within_volume": _within("taker_buy_volume", "volume", full),
        "taker_within_quote_volume": _within("taker_buy_quote_volume", "quote_volume", full),
    }
    if "timeframe" in frame.columns:
        opens, available = (pl.col(name).to_physical() for name in ("open_time", "available_at"))
        length = _length_micros(frame["timeframe"])
        rules["on_grid"] = opens % length == 0
        rules["available_after_close"] = available - opens >= length
    if "year" in frame.columns:
        rules["year_of_open_time"] = _year_rule(frame["year"])
    return rules


def _all(rules: Iterable[pl.Expr]) -> pl.Expr:
    return reduce(and_, rules)


def _sound(name: str) -> pl.Expr:
    # To Polars NaN is the greatest float: `< inf` refuses it together with infinity.
    return (pl.col(name) >= 0) & (pl.col(name) < float("inf"))


def _within(part: str, whole: str, full: Container[str]) -> pl.Expr:
    limit = pl.col(whole) * (1 + _NOISE) + _NOISE
    return _or_null(pl.col(part) <= limit, full, part, whole)


def _or_null(rule: pl.Expr, full: Container[str], *names: str) -> pl.Expr:
    """Let nulls pass; columns known to have none are not asked, which halves the cost."""
    holes = (pl.col(name).is_null() for name in names if name not in full)
    return reduce(or_, holes, rule)


def _length_micros(timeframes: pl.Series) -> pl.Expr:
    """Return the length of each row's bar, null where the timeframe is unknown."""
    lengths: dict[str, int] = {}
    codes = [timeframes[0]] if is_constant(timeframes) else timeframes.unique().to_list()
    for code in codes:
        try:
            lengths[code] = Timeframe.parse(code or "").micros
        except UnknownTimeframeError:
            continue
    if len(codes) == len(lengths) == 1:
        return pl.lit(lengths[codes[0]], dtype=pl.Int64)
    column = pl.col("timeframe")
    return column.replace_strict(lengths, default=None, return_dtype=pl.Int64)


def _year_rule(years: pl.Series) -> pl.Expr:
    """Say that the year is that of open_time; for a few years, by their bounds."""
    first, last = years.min(), years.max()
    opens = pl.col("open_time")
    if not (isinstance(first, int) and isinstance(last, int) and 1 <= first <= last < 9999):
        return opens.dt.year() == pl.col("year")
    if last - first > 3:
        return opens.dt.year() == pl.col("year")
    starts = [datetime(year, 1, 1, tzinfo=UTC) for year in range(first, last + 2)]
    within = [
        (pl.col("year") == start.year) & (opens >= start) & (opens < end)
        for start, end in itertools.pairwise(starts)
    ]
    return reduce(or_, within)


def _fixed(**rules: pl.Expr) -> Callable[[pl.DataFrame], Rules]:
    return lambda _: rules


def _positive_or_null(name: str) -> pl.Expr:
    return (pl.col(name) > 0) | pl.col(name).is_null()


def _one_of(name: str, *known: str) -> pl.Expr:
    return pl.col(name).is_in(known)


_TABLE_RULES: Mapping[str, Callable[[pl.DataFrame], Rules]] = {
    BARS.name: bar_rules,
    BAR_REVISIONS.name: bar_rules,
    LEDGER.name: _fixed(
        span_ordered=pl.col("span_start") < pl.col("span_end"),
        state_known=_one_of("state", *State),
    ),
    QUARANTINE.name: _fixed(reasons_given=pl.col("reasons").list.len() > 0),
    AUDITS.name: _fixed(
        span_ordered=pl.col("span_start") < pl.col("span_end"),
        verdict_known=_one_of("verdict", "passed", "failed", "tripped", "released", "disagreed"),
        rows_counted=(pl.col("bad_rows") >= 0) & (pl.col("rows") >= 0),
    ),
    INSTRUMENTS.name: _fixed(
        valid_span_ordered=(pl.col("valid_from") < pl.col("valid_to"))
        | pl.col("valid_to").is_null(),
        status_known=_one_of("status", "trading", "halted", "pending", "delisted", "unknown"),
        steps_positive=_all(
            map(
                _positive_or_null,
                ("tick_size", "lot_size", "contract_size", "funding_interval_hours"),
            )
        ),
    ),
}


@dataclass(frozen=True)
class _Promise:
    """One check of the model: a fast verdict, and the rules that explain a failure."""

    name: str
    holds: Callable[[pl.DataFrame], bool]
    rules: Callable[[pl.DataFrame], Rules]


@cache
def _promises(spec: TableSpec, without: tuple[str, ...]) -> tuple[_Promise, ...]:
    columns = [column for column in spec.columns if column.name not in without]
    required = [column.name for column in columns if not column.nullable]
    floats = [column.name for column in columns if column.dtype.is_float()]
    present = {column.name for column in columns}

    def row_rules(frame: pl.DataFrame) -> Rules:
        rules = _TABLE_RULES.get(spec.name, _fixed())(frame)
        kept = {name: rule for name, rule in rules.items() if present.issuperset(_roots(rule))}
        return finite | kept

    filled = {f"{name}_not_null": pl.col(name).is_not_null() for name in required}
    finite = {
        f"{name}_finite": pl.col(name).is_finite() | pl.col(name).is_null() for name in floats
    }
    promises = [
        _Promise("not_null", lambda f: not sum(f[name].null_count() for name in required),
                 lambda _: filled),
        _Promise("rows", lambda f: _hold(f, row_rules(f)), row_rules),
    ]  # fmt: skip
    if present.issuperset(spec.key):
        unique = {"key_unique": pl.struct(spec.key).is_unique()}
        promises.append(_Promise("key_unique", lambda f: is_unique(f, spec.key), lambda _: unique))
    return tuple(promises)


def _roots(rule: pl.Expr) -> list[str]:
    return rule.meta.root_names()


def _hold(frame: pl.DataFrame, rules: Rules) -> bool:
    verdicts = frame.select(
        rule.all(ignore_nulls=False).alias(name) for name, rule in rules.items()
    )
    return all(verdict is True for verdict in (verdicts.row(0) if rules else ()))


def _strictly_ordered(frame: pl.DataFrame, key: Sequence[str]) -> bool:
    """Tell whether equal prefixes of the key stand together, its last column rising in each."""
    *prefix, last = key
    prefix = [name for name in prefix if not is_constant(frame[name])]
    rising = pl.col(last) > pl.col(last).shift(1)
    if not prefix:
        return frame.select(rising.slice(1).all(ignore_nulls=False)).item() is True
    change = reduce(or_, (pl.col(name).ne_missing(pl.col(name).shift(1)) for name in prefix))
    marks = frame.select(change=change, sound=rising | change)
    if not marks["sound"].slice(1).all(ignore_nulls=False):
        return False
    starts = frame.select(prefix).filter(marks["change"])
    return starts.height < frame.height // 8 and not starts.is_duplicated().any()


def is_constant(series: pl.Series) -> bool:
    """Tell whether a series holds one value and no null; an empty one does not."""
    if series.is_empty() or series.null_count():
        return False
    return bool((series == series[0]).all())


def _check_schema(spec: TableSpec, frame: pl.DataFrame, without: tuple[str, ...]) -> None:
    probe = frame.clear()
    for index, column in enumerate(spec.columns):
        if column.name not in without:
            continue
        if column.name in probe.columns:
            msg = f"{spec.name}: {column.name} stands in a frame that must not have it yet"
            raise ContractError(msg, remedy="Drop the column", table=spec.name)
        probe.insert_column(min(index, probe.width), pl.Series(column.name, [], dtype=column.dtype))
    spec.check_schema(probe)


@cache
def _model(spec: TableSpec, without: tuple[str, ...]) -> Any:
    import pandera.polars as pandera

    columns = {
        column.name: pandera.Column(column.dtype, nullable=True)
        for column in spec.columns
        if column.name not in without
    }
    checks = [
        pandera.Check(_over_frame(promise.holds), name=promise.name)
        for promise in _promises(spec, without)
    ]
    return pandera.DataFrameSchema(
        columns, checks=checks, strict=True, ordered=True, name=spec.name
    )


def _over_frame(holds: Callable[[pl.DataFrame], bool]) -> Callable[[Any], bool]:
    return lambda data: holds(data.lazyframe.collect())


def _passes(model: Any, frame: pl.DataFrame) -> bool:
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaError, SchemaErrors

    # Set here, so that no environment variable can switch the contracts off.
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        try:
            model.validate(frame, lazy=True)
        except (SchemaError, SchemaErrors):
            return False
    return True


def _contract_error(
    spec: TableSpec, frame: pl.DataFrame, promises: Iterable[_Promise]
) -> ContractError:
    rules = {name: rule for promise in promises for name, rule in promise.rules(frame).items()}
    masks = frame.select(
        rule.fill_null(value=False).not_().alias(name) for name, rule in rules.items()
    )
    failures = {mask.name: int(mask.sum()) for mask in masks if mask.any()}
    if not failures:
        msg = f"{spec.name}: pandera refuses a frame that keeps every rule"
        raise InvariantError(msg, remedy="Report it together with the frame", table=spec.name)
    first = masks[next(iter(failures))].arg_max() or 0
    example = frame.row(first, named=True)
    shown = ", ".join(f"{name}={_short(example[name])}" for name in _telling(spec, example))
    counts = "; ".join(f"{name} in {count} rows" for name, count in failures.items())
    return ContractError(
        f"{spec.name}: of {frame.height} rows, {counts}; for instance {shown}",
        remedy="Audit the frame first: bad rows belong in the quarantine",
        table=spec.name,
        failures=failures,
        example=example,
        rows=frame.height,
    )


def _telling(spec: TableSpec, example: Mapping[str, Any]) -> list[str]:
    named = {*spec.key, *spec.value_columns[:5]}
    return [name for name in example if name in named]


def _short(value: object) -> str:
    text = iso(value) if isinstance(value, datetime) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
