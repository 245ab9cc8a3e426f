"""A simulated Bitcoin market behind a CoinGecko-compatible API on loopback.

market          prices, a pure function of (seed, absolute time), and the times of the API's points
error_bodies    the API's error bodies
answers         request → status and JSON, no sockets
server          HTTP, with the cache: the same question, the same answer
"""
