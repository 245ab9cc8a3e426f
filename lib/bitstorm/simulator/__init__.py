"""A simulated Bitcoin market behind a CoinGecko-compatible API on loopback.

market          prices, a pure function of (seed, absolute time)
timeline        when the API has its points: off the grid, some hours empty, some doubled
error_bodies    the API's error bodies
answers         request → status and JSON, no sockets
response_cache  the cache in front: the same question, the same answer
server          the HTTP around it all
"""
