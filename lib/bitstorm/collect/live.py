"""One live observation, one batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitstorm.collect.batches import Batch, batch_name, observation_rows, swept, write_batch
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.observation import Observation
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import now_ms


@dataclass(frozen=True, repr=False)
class Collected(Result):
    """What one look at the market brought.

    `batch` is None when the observation is stale: one of the same time has landed before; where
    another run was faster just now, it is that run's. `age_ms` is how old the observation was when
    it was fetched.
    """

    observation: Observation
    source: str
    batch: Batch | None
    age_ms: int

    def facts(self) -> dict[str, Any]:
        """The observation, and the file it is in."""
        return {
            **asdict(self.observation),
            "source": self.source,
            "batch": "stale: it has landed before" if self.batch is None else self.batch.path,
            "age_ms": self.age_ms,
        }

    @property
    def stale(self) -> bool:
        return self.batch is None or not self.batch.new


def collect_once(
    client: CoinGecko,
    landing: Path,
    *,
    coin: str,
    vs_currency: str,
    asking: AbstractContextManager[object] | None = None,
    clock: Callable[[], int] = now_ms,
) -> Collected:
    """Fetch the newest observation and land it, named and keyed by the source's own time.

    `clock` gives Unix ms. The request runs inside `asking`, nothing that writes a batch does: what
    breaks it off there loses nothing. Raises SourceError as `CoinGecko.simple_price`.
    """
    swept(landing)
    with asking or nullcontext():
        observation = client.simple_price(coin, vs_currency)
    # A clock that is behind would state that this was fetched before it was observed.
    fetched_at = max(clock(), observation.timestamp)
    name = batch_name(coin, observation.timestamp)
    batch = None
    if not (landing / name).exists():
        batch = write_batch(
            landing,
            observation_rows([observation]),
            name=name,
            origin=Origin(client.source, coin, vs_currency),
            granularity_ms=None,
            fetched_at=fetched_at,
            request={"endpoint": "/simple/price", "ids": coin, "vs_currencies": vs_currency},
        )
    return Collected(observation, client.source, batch, fetched_at - observation.timestamp)
