"""Orchestrates the path of the data: land, conform, audit, publish, ledger, snapshot."""
