"""What a golden lake shows, as JSON can hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel_support import BTC, ETH, KNOWN

if TYPE_CHECKING:
    import polars as pl

    from lake.lakehouse import Lake


def shown(lk: Lake) -> dict[str, Any]:
    """Return every kind of answer of a lake, as texts."""
    return {
        "btc": _rows(lk.bars(BTC, timeframe="1m").collect()),
        "eth": _rows(lk.bars(ETH, timeframe="1m").collect()),
        "hours": _rows(lk.bars(BTC, timeframe="1h").collect()),
        "known before": _rows(lk.bars(BTC, timeframe="1m", known_at=KNOWN).collect()),
        "history": _rows(lk.bar_history("*", timeframe="1m").collect()),
        "ledger": _rows(lk.ledger()),
        "responses": _rows(lk.scan("bronze.responses").sort("response_id").collect()),
        "quarantine": _rows(lk.scan("ops.quarantine").collect()),
        "audits": _rows(lk.scan("ops.audits").sort("audit_id").collect()),
    }


def _rows(frame: pl.DataFrame) -> list[list[str]]:
    """Return the schema, then the rows; floats in their shortest exact form."""
    schema = [f"{name}: {dtype}" for name, dtype in frame.schema.items()]
    return [schema, *([repr(value) if isinstance(value, float) else str(value) for value in row]
                      for row in frame.iter_rows())]  # fmt: skip
