"""The source that the settings name, and its newest price: as a batch, or as a dict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bitstorm.collect import batches
from bitstorm.collect.batches import Batch, Observation
from bitstorm.collect.coingecko.answer_checks import AnswerChecks
from bitstorm.collect.coingecko.client import ROOTS, CoinGecko, Plan
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from bitstorm.collect.coingecko.rate_limit import Limits, RateLimit, limits_of
from bitstorm.collect.coingecko.route import is_loopback
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.core.errors import UsageError
from bitstorm.core.results import Result
from bitstorm.core.settings import Settings
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import now_ms


@dataclass(frozen=True, repr=False)
class Collected(Result):
    """The result of one `collect`.

    `batch` is None when the observation is stale: one of the same time has landed before. When
    another run landed it at the same moment, `batch` is that run's. `age_ms` is the observation's
    age at its fetch.
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

    @property
    def rows(self) -> int:
        """The new rows."""
        return 0 if self.stale else 1


def collect_once(
    client: CoinGecko,
    landing: Path,
    *,
    coin: str,
    vs_currency: str,
    during_request: AbstractContextManager[object] | None = None,
    clock: Callable[[], int] = now_ms,
) -> Collected:
    """Fetch the newest observation and land it; the source's own time gives the name.

    `clock` gives Unix ms. Only the request runs inside `during_request`, so an interruption there
    loses no batch. Raises SourceError as `CoinGecko.simple_price`.
    """
    batches.delete_leftovers(landing)
    with during_request or nullcontext():
        observation = client.simple_price(coin, vs_currency)
    # With a slow clock the fetch would come before the observation.
    fetched_at = max(clock(), observation.timestamp)
    name = batches.batch_name(coin, observation.timestamp)
    batch = None
    if not (landing / name).exists():
        info = batches.SourceInfo(
            Origin(client.source, coin, vs_currency),
            granularity_ms=None,
            fetched_at=fetched_at,
            request={"endpoint": "/simple/price", "ids": coin, "vs_currencies": vs_currency},
        )
        rows = batches.observation_rows([observation])
        batch = batches.write_batch(landing, rows, info, name=name)
    return Collected(observation, client.source, batch, fetched_at - observation.timestamp)


_COIN, _CURRENCY = "bitcoin", "usd"
_API = "/api/v3"
_ENDPOINT = "/simple/price"
# The longest wait in a notebook, retries included.
_DEADLINE_SECONDS = 60.0


def fetch_current_price(base_url: str = ROOTS["keyless"]) -> dict[str, Any]:
    """Bitcoin's newest price: `timestamp`, `price_usd`, `market_cap`, `price_change_24h`.

    `timestamp` is the source's own time in Unix milliseconds UTC, not the clock's; price and cap
    are in USD, the change over 24 hours is in percent; cap and change can be None. `base_url` is
    the API's root, with or without `/api/v3`; a key of the environment goes to CoinGecko's own
    hosts only. Raises UsageError for a wrong address, EnvironmentProblem for an unusable proxy or
    CA bundle of the environment, SourceError when the source gives no price.
    """
    root = _api_root(base_url)
    key = os.environ.get(KEY_VARIABLE)
    options = TransportOptions(deadline=_DEADLINE_SECONDS)
    with CoinGecko(base_url=root, plan=_plan(root, key), api_key=key, options=options) as source:
        observation = source.simple_price(_COIN, _CURRENCY)
    return {
        "timestamp": observation.timestamp,
        "price_usd": observation.price,
        "market_cap": observation.market_cap,
        "price_change_24h": observation.price_change_24h,
    }


def _api_root(base_url: str) -> str:
    """The client's root: with a scheme and `/api/v3`, without an endpoint."""
    text = base_url.strip() if isinstance(base_url, str) else ""
    if "://" not in text:
        text = f"{'http' if is_loopback(f'http://{text}') else 'https'}://{text}"
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"{base_url!r} is not the address of a price source; expected one such as "
            f"{ROOTS['keyless']}"
        )
    path = url.path.rstrip("/").removesuffix(_ENDPOINT)
    return f"{url.scheme}://{url.netloc}{path or _API}"


def _plan(root: str, key: str | None) -> Plan:
    """The host's plan: each host has its own keys, and a key must reach no other host."""
    if root == ROOTS["pro"]:
        return "pro"
    return "demo" if key and root == ROOTS["demo"] else "keyless"


@contextmanager
def open_source(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    calls: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
    checks: AnswerChecks | None = None,
    clock: Callable[[], int] = now_ms,
) -> Iterator[CoinGecko]:
    """A client of CoinGecko, or of a simulator that runs for the block.

    In the mode `simulated` a simulator is started unless `source.base_url` names one. The key comes
    from COINGECKO_API_KEY of `environ` only. `calls` is the file that counts calls for the limits;
    None sets no limits. `report` gets a line about each long wait, `warn` one about low credits or
    a key that is not sent; `clock` (Unix ms) serves client and simulator. Raises UsageError in the
    mode `csv`, KeyProblem for a plan without its key.
    """
    source, root = settings.source, settings.source.base_url
    local = source.mode == "simulated" or (root is not None and is_loopback(root))
    if source.mode == "csv":
        raise UsageError(
            "source.mode is csv, so there is no source to call; use `import FILE`, or set "
            "source.mode to simulated or coingecko"
        )
    key = environ.get(KEY_VARIABLE)
    if source.mode == "coingecko" and source.plan == "keyless" and (key or "").strip():
        warn(
            f"{KEY_VARIABLE} is set, but source.plan is keyless, so no key is sent; set "
            "source.plan to the plan of the key (demo or pro), or unset the variable"
        )
    with ExitStack() as running:
        if source.mode == "simulated" and root is None:
            from bitstorm.simulator.market import Market
            from bitstorm.simulator.server import Simulator

            market = Market(settings.simulator.seed)
            root = running.enter_context(Simulator(market, clock=clock)).base_url
        limits = limits_of(source, local=local)
        rate_limit = None
        if calls is not None and limits != Limits(None, None):
            rate_limit = RateLimit(calls, limits, warn=warn, clock=clock)
        options = TransportOptions(
            connect_timeout=source.connect_timeout_seconds,
            read_timeout=source.read_timeout_seconds,
            deadline=source.deadline_seconds,
            retries=source.retries,
            rate_limit=rate_limit,
            report=report,
            clock=clock,
        )
        client = CoinGecko(
            base_url=root, plan=source.plan, api_key=key, checks=checks, options=options
        )
        yield running.enter_context(client)
