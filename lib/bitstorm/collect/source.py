"""The source that the settings name, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bitstorm.collect.coingecko import CoinGecko, client_from
from bitstorm.collect.door import Door
from bitstorm.config import Settings
from bitstorm.errors import UsageError
from bitstorm.instants import now_ms


@contextmanager
def opened(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    calls: Path | None = None,
    tell: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    door: Door | None = None,
    clock: Callable[[], int] = now_ms,
) -> Iterator[CoinGecko]:
    """A client: of CoinGecko, or of a simulator that runs for as long as the context.

    In the mode `simulated` an own simulator is started unless `source.base_url` names one. `clock`
    (Unix ms) serves both sides; `door`, `calls`, `tell` and `warn` are as in `client_from`. Raises
    UsageError in the mode `csv`, KeyProblem for a plan without its key.
    """
    mode = settings.source.mode
    if mode == "csv":
        raise UsageError(
            "source.mode is csv: there is nobody to ask; use `import FILE`, or set source.mode to "
            "simulated or coingecko"
        )
    if mode == "simulated" and settings.source.base_url is None:
        from bitstorm.collect.simulator.market import Market
        from bitstorm.collect.simulator.server import Simulator

        with (
            Simulator(Market(settings.simulator.seed), clock=clock) as simulator,
            client_from(
                settings.source,
                environ,
                base_url=simulator.base_url,
                calls=calls,
                tell=tell,
                warn=warn,
                door=door,
                clock=clock,
            ) as client,
        ):
            yield client
    else:
        with client_from(
            settings.source, environ, calls=calls, tell=tell, warn=warn, door=door, clock=clock
        ) as client:
            yield client
