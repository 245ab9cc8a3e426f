"""The source that the settings name, and its newest price: as a batch, or as a dict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bitstorm.collect.batches import (
    Batch,
    Observation,
    batch_name,
    observation_rows,
    swept,
    write_batch,
)
from bitstorm.collect.coingecko.answer_checks import AnswerChecks
from bitstorm.collect.coingecko.client import ROOTS, CoinGecko, Plan
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from bitstorm.collect.coingecko.rate_limit import Limits, RateLimit, limits_of
from bitstorm.collect.coingecko.transport import is_loopback
from bitstorm.core.config import Settings
from bitstorm.core.errors import UsageError
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


_COIN, _CURRENCY = "bitcoin", "usd"
_API = "/api/v3"
_ENDPOINT = "/simple/price"
# In a notebook nobody waits longer, retries included.
_DEADLINE_SECONDS = 60.0


def fetch_current_price(base_url: str = ROOTS["keyless"]) -> dict[str, Any]:
    """Bitcoin's newest price: `timestamp`, `price_usd`, `market_cap`, `price_change_24h`.

    `timestamp` is Unix milliseconds UTC as the source states it, not the clock; price and cap are
    in USD, the change over 24 hours in percent; cap and change may be None. `base_url` is the
    API's root, with or without `/api/v3`; a key in the environment is sent to CoinGecko's own
    hosts only. Raises UsageError for an address that is none, SourceError for what the source
    answers instead of a price.
    """
    root = _api_root(base_url)
    key = os.environ.get(KEY_VARIABLE)
    with CoinGecko(
        base_url=root, plan=_plan(root, key), api_key=key, deadline=_DEADLINE_SECONDS
    ) as source:
        observation = source.simple_price(_COIN, _CURRENCY)
    return {
        "timestamp": observation.timestamp,
        "price_usd": observation.price,
        "market_cap": observation.market_cap,
        "price_change_24h": observation.price_change_24h,
    }


def _api_root(base_url: str) -> str:
    """The root that the client asks for: with a scheme and `/api/v3`, without an endpoint."""
    text = base_url.strip()
    if "://" not in text:
        text = f"{'http' if is_loopback(f'http://{text}') else 'https'}://{text}"
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"{base_url!r} is no address of a price source; expected one such as {ROOTS['keyless']}"
        )
    path = url.path.rstrip("/").removesuffix(_ENDPOINT)
    return f"{url.scheme}://{url.netloc}{path or _API}"


def _plan(root: str, key: str | None) -> Plan:
    """The plan goes by the host: a key must reach no other one, and each host has its own keys."""
    if root == ROOTS["pro"]:
        return "pro"
    return "demo" if key and root == ROOTS["demo"] else "keyless"


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
