"""CoinGecko: the client, its HTTP, its limits, and the checks of its answers."""
