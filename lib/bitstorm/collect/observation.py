"""One observation of a coin's price, as every source gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Observation:
    """What the source stated for one moment.

    `timestamp` is the observation's own time, Unix milliseconds UTC. Price, cap and volume are in
    the quote currency, the volume is that of the 24 hours before, the change over them in percent.
    """

    timestamp: int
    price: float
    market_cap: float | None = None
    volume_24h: float | None = None
    price_change_24h: float | None = None
