"""CoinGecko: the client, its HTTP, its limits, and what its answers must be."""
