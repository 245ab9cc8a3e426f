"""`simulate`: the simulated market, or a recording, as a CoinGecko-compatible API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.simulator.faults import rules_from
from bitstorm.simulator.limits import LIMITS, UNLIMITED, Plan
from bitstorm.simulator.market import Market
from bitstorm.simulator.server import Simulator


def simulate(
    context: Context,
    *,
    port: int | None,
    replay: Path | None,
    announce: Callable[[str], None],
    faults: Path | None = None,
    plan: Plan = "keyless",
    limited: bool = False,
) -> None:
    """Serve on loopback until interrupted; `announce` gets the address.

    `faults` is a script as `simulator.faults` describes it; `limited` refuses what is more
    than the plan allows. Raises UsageError for files that cannot be used, or a port that is taken.
    """
    settings = context.settings.simulator
    simulator = Simulator(
        Market(settings.seed) if replay is None else None,
        replay=None if replay is None else _recording(replay),
        plan=plan,
        limits=LIMITS[plan] if limited else UNLIMITED,
        script=() if faults is None else rules_from(_script(faults), origin=str(faults)),
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


def _script(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the script of faults {path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            f"the script of faults {path} is neither YAML nor JSON ({first}); expected a list of "
            "rules such as - {endpoint: /simple/price, requests: 1-2, refuse: 429}"
        ) from None
