"""`simulate`: the simulated market, or a recording, as a CoinGecko-compatible API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.simulator.answers import Plan
from bitstorm.simulator.market import Market
from bitstorm.simulator.server import Simulator


def simulate(
    context: Context,
    *,
    port: int | None,
    replay: Path | None,
    announce: Callable[[str], None],
    plan: Plan = "keyless",
) -> None:
    """Serve on loopback until a signal; `announce` gets the address.

    Raises UsageError where the recording cannot be read, or the port is in use.
    """
    settings = context.settings.simulator
    simulator = Simulator(
        Market(settings.seed) if replay is None else None,
        replay=None if replay is None else _recording(replay),
        plan=plan,
        port=settings.port if port is None else port,
    )
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
