"""`simulate`: the simulated market, or a recording, as a CoinGecko-compatible API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitstorm.collect.simulator.market import Market
from bitstorm.collect.simulator.server import Simulator
from bitstorm.errors import UsageError
from bitstorm.pipelines.context import Context


def simulate(
    context: Context, *, port: int | None, replay: Path | None, announce: Callable[[str], None]
) -> None:
    """Serve on loopback until interrupted; `announce` gets the address."""
    chosen = context.settings.simulator.port if port is None else port
    if replay is None:
        simulator = Simulator(Market(context.settings.simulator.seed), port=chosen)
    else:
        simulator = Simulator(replay=_recording(replay), port=chosen)
    announce(simulator.base_url)
    simulator.serve_until_stopped()


def _recording(path: Path) -> bytes:
    import gzip

    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise UsageError(
            f"the recording {path} cannot be read ({error}); expected a market chart's JSON, "
            "gzipped or not"
        ) from None
