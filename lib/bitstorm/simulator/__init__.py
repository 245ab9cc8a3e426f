"""A simulated Bitcoin market behind a CoinGecko-compatible API on loopback.

market          prices, a pure function of (seed, absolute time)
timeline        when the API has its points: off the grid, some hours empty, some doubled
error_bodies    the API's error bodies
answers         request → status and JSON, no sockets
limits          calls in a minute and credits in a month, by plan
response_cache  the cache in front: the same question, the same answer
faults          wrong answers by script
server          the HTTP around it all
"""
