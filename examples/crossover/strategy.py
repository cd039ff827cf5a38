"""A moving-average crossover on the bars that lake.lock pins, backtested.

::

    lake run --locked strategy.py --fast 2 --slow 6

``--newest`` asks for the newest state of ./lakehouse instead of the locked bars. In a run that
is bound to the lock, that is the locked snapshot as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

import lake

HERE = Path(__file__).parent
BTC = "BTC-USDT-SPOT.BINANCE"


def mean(values: pd.Series, bars: int) -> pd.Series:
    """Return the mean of the last so many values at each bar."""
    return pd.Series(values).rolling(bars).mean()


class Crossover(Strategy):
    """Long while the fast mean is above the slow one, else flat."""

    fast = 2
    slow = 6

    def init(self) -> None:
        """Prepare the two means."""
        self.fast_mean = self.I(mean, self.data.Close, self.fast)
        self.slow_mean = self.I(mean, self.data.Close, self.slow)

    def next(self) -> None:
        """Enter when the fast mean rises above the slow one, leave when it falls below."""
        if crossover(self.fast_mean, self.slow_mean):
            self.buy()
        elif crossover(self.slow_mean, self.fast_mean):
            self.position.close()


def read(*, newest: bool) -> pd.DataFrame:
    """Return bars as the backtest takes them: OHLCV by open time.

    Reading checks that the rows hash to what the lock says, unless the newest are asked for.
    """
    if newest:
        lk = lake.open(HERE / "lakehouse")
        rows = lk.bars(BTC, timeframe="1h").collect()
    else:
        lk = lake.open(lock=HERE / "lake.lock")
        rows = lk.locked_bars(verify=True).collect()
    prices = {name.title(): rows[name].to_list() for name in ("open", "high", "low", "close")}
    return pd.DataFrame(
        {**prices, "Volume": rows["volume"].to_list()},
        index=pd.DatetimeIndex(rows["open_time"].dt.replace_time_zone(None).to_list()),
    )


def main() -> int:
    """Backtest and print the figures, to the last digit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", type=int, default=2)
    parser.add_argument("--slow", type=int, default=6)
    parser.add_argument("--newest", action="store_true")
    asked = parser.parse_args()
    try:
        bars = read(newest=asked.newest)
    except lake.TidemarkError as error:
        print(f"refused: {error}", file=sys.stderr)
        return error.exit_code
    test = Backtest(bars, Crossover, cash=1_000_000, commission=0.001, finalize_trades=True)
    figures = test.run(fast=asked.fast, slow=asked.slow)
    print(f"bars          {len(bars)}")
    print(f"trades        {figures['# Trades']}")
    print(f"final equity  {float(figures['Equity Final [$]'])}")
    print(f"return        {float(figures['Return [%]'])} %")
    print(f"drawdown      {float(figures['Max. Drawdown [%]'])} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
