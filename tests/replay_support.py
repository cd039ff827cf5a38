"""What the tests of the replay exchange share."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from contracts.time import parse_time, to_millis

if TYPE_CHECKING:
    import aiohttp

RECORDED = Path(__file__).parents[1].parent / "shared" / "data"
MINUTE = timedelta(minutes=1)

needs_recorded = pytest.mark.skipif(
    not (RECORDED / "tape.toml").is_file(), reason="the recorded tapes of ../shared/data are absent"
)

# As the venue's documentation prints a kline.
DOCUMENTED_KLINE = json.loads(
    '[1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",'
    '1499644799999,"2434.19055334",308,"1756.87402397","28.46694368","0"]'
)


def ms(text: str) -> int:
    return to_millis(parse_time(text))


def bars_frame(start: str, count: int, *, step: timedelta = MINUTE, first: float = 100.0):
    opened = [parse_time(start) + number * step for number in range(count)]
    return pl.DataFrame(
        {
            "open_time": pl.Series(opened, dtype=pl.Datetime("us", "UTC")),
            "open": [first + number for number in range(count)],
            "high": [first + number + 2.5 for number in range(count)],
            "low": [first + number - 1.25 for number in range(count)],
            "close": [first + number + 1 for number in range(count)],
            "volume": [10.0 + number for number in range(count)],
        }
    )


def entry(file: str, **fields: str) -> str:
    facts = {"venue": "binance", "market": "spot", "symbol": "BTC/USDT", "timeframe": "1m"}
    facts |= {"file": file, **fields}
    columns = facts.pop("columns", None)
    lines = [f'{name} = "{value}"' for name, value in facts.items()]
    lines += [f"columns = {columns}"] if columns else []
    return "\n".join(["[[bars]]", *lines, ""])


def write_tape(folder: Path, *entries: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tape.toml").write_text("\n".join(entries))
    return folder


class Client:
    """Asks a replay exchange as a client of Binance would."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url, self.session = base_url, session

    async def text(self, path: str, host: str = "api.binance.com", **query):
        url = f"{self.base_url}/{host}/{path.lstrip('/')}"
        async with self.session.get(url, params=query) as response:
            return response.status, response.headers, await response.text()

    async def json(self, path: str, **query):
        status, _, text = await self.text(path, **query)
        assert status == 200, text
        return json.loads(text)

    async def klines(self, **query):
        asked = {"symbol": "BTCUSDT", "interval": "1m", **query}
        return await self.json("/api/v3/klines", **asked)

    async def control(self, method: str, what: str, content=None):
        url = f"{self.base_url}/_replay/{what}"
        async with self.session.request(method, url, json=content) as response:
            return response.status, await response.json()
