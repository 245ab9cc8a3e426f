"""Prices from outside: CoinGecko, its simulated twin, and foreign files, all of them into batches.

No Spark in here. What leaves this package is a CSV batch with its sidecar in `landing/`.
"""
