"""Prices from outside: CoinGecko and CSV files of other people, all of them into batches.

No Spark in here. What leaves this package is a CSV batch with its sidecar in `landing/`.
"""
