"""``lake``: the command line.

stdout is data only; progress, summaries and errors go to stderr. Commands import what they
need when they run: ``lake --help`` loads neither Polars nor ccxt.
"""

from __future__ import annotations

from flows.cli.entry import main

__all__ = ["main"]
