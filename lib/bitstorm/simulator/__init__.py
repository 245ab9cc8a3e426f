"""A simulated Bitcoin market behind a CoinGecko-compatible API on loopback.

market          prices, a pure function of (seed, absolute time), and the times of the API's points
answers         request → status, JSON and error bodies, no sockets
server          HTTP, with the cache: the same question, the same answer
"""
