"""The source that the settings name, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bitstorm.collect.coingecko.answer_checks import AnswerChecks
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from bitstorm.collect.coingecko.rate_limit import Limits, RateLimit, limits_of
from bitstorm.collect.coingecko.transport import is_loopback
from bitstorm.core.config import Settings
from bitstorm.core.errors import UsageError
from bitstorm.core.time import now_ms


@contextmanager
def opened(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    calls: Path | None = None,
    tell: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    checks: AnswerChecks | None = None,
    clock: Callable[[], int] = now_ms,
) -> Iterator[CoinGecko]:
    """A client: of CoinGecko, or of a simulator that runs for as long as the context.

    In the mode `simulated` an own simulator is started unless `source.base_url` names one. The key
    comes from COINGECKO_API_KEY of `environ` and nowhere else. `calls` is the file that counts
    calls for the limits; without one there are none. `tell` hears of waits, `warn` (else `tell`) of
    credits that run low; `clock` (Unix ms) serves both sides. Raises UsageError in the mode `csv`,
    KeyProblem for a plan without its key.
    """
    source, root = settings.source, settings.source.base_url
    local = source.mode == "simulated" or (root is not None and is_loopback(root))
    if source.mode == "csv":
        raise UsageError(
            "source.mode is csv: there is nobody to ask; use `import FILE`, or set source.mode to "
            "simulated or coingecko"
        )
    with ExitStack() as running:
        if source.mode == "simulated" and root is None:
            from bitstorm.simulator.market import Market
            from bitstorm.simulator.server import Simulator

            market = Market(settings.simulator.seed)
            root = running.enter_context(Simulator(market, clock=clock)).base_url
        limits = limits_of(source, local=local)
        meter = None
        if calls is not None and limits != Limits(None, None):
            meter = RateLimit(calls, limits, warn=warn or tell or (lambda _: None), clock=clock)
        client = CoinGecko(
            base_url=root,
            plan=source.plan,
            api_key=environ.get(KEY_VARIABLE),
            connect_timeout=source.connect_timeout_seconds,
            read_timeout=source.read_timeout_seconds,
            deadline=source.deadline_seconds,
            retries=source.retries,
            meter=meter,
            tell=tell,
            checks=checks,
            clock=clock,
        )
        yield running.enter_context(client)
