"""A simulated Bitcoin market behind a CoinGecko-compatible API on loopback.

noise     random numbers that are a pure function of (seed, lane, index)
market    prices, a pure function of (seed, absolute time)
stamps    when the API has its points: off the grid, some hours empty, some doubled
answers   request → status and JSON, no sockets
server    the HTTP around it, and the ledger of what was asked
"""
