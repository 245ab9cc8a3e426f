"""Prices from outside, CoinGecko and CSV files, as CSV batches with sidecars in `landing/`.

No Spark here.
"""
