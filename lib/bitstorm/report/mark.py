"""What every picture says about where its data is from."""

from __future__ import annotations

from dataclasses import dataclass

from bitstorm.core.sidecar import Origin

COINGECKO = "coingecko"
COINGECKO_URL = "https://www.coingecko.com"


@dataclass(frozen=True)
class Mark(Origin):
    """`source` is `simulated:SEED`, `coingecko` or `csv`; coin and currency are CoinGecko's ids."""

    @property
    def unit(self) -> str:
        """The unit of every price, such as `USD`."""
        return self.vs_currency.upper()

    @property
    def subject(self) -> str:
        """`Bitcoin in USD`."""
        return f"{self.coin.capitalize()} in {self.unit}"

    @property
    def banner(self) -> str | None:
        """The line over simulated data, None over real data."""
        if not self.simulated:
            return None
        _, _, seed = self.source.partition(":")
        return f"SIMULATED market{f' (seed {seed})' if seed else ''}: not real prices"

    @property
    def attribution(self) -> str | None:
        """The line that CoinGecko asks for beside its data, None for other sources."""
        return "Data provided by CoinGecko" if self.source == COINGECKO else None

    @property
    def origin(self) -> str:
        """One phrase for provenance lists."""
        if self.simulated:
            return f"{self.source} (the built-in simulated market)"
        return "CoinGecko" if self.source == COINGECKO else f"{self.source} (imported file)"
