"""The client of CoinGecko's API v3: live price and history, as observations or as clear errors."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from bitstorm import __version__
from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko.answer_checks import AnswerChecks, Seen
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE, is_error_body, refusal, said
from bitstorm.collect.coingecko.rate_limit import RateLimit
from bitstorm.collect.coingecko.transport import Reply, Transport, is_loopback
from bitstorm.core.errors import BadAnswer, KeyProblem, UnknownCoin, UnknownCurrency, UsageError
from bitstorm.core.schema import GENESIS_MS, SECONDS_BELOW
from bitstorm.core.time import DAY_MS, iso, now_ms

Plan = Literal["keyless", "demo", "pro"]
_T = TypeVar("_T")

SOURCE = "coingecko"
ROOTS: Mapping[Plan, str] = MappingProxyType(
    {
        "keyless": "https://api.coingecko.com/api/v3",
        "demo": "https://api.coingecko.com/api/v3",
        "pro": "https://pro-api.coingecko.com/api/v3",
    }
)
USER_AGENT = f"bitstorm/{__version__} (+https://github.com/bitstorm/bitstorm)"

_KEY_HEADERS: Mapping[Plan, str] = MappingProxyType(
    {"demo": "x-cg-demo-api-key", "pro": "x-cg-pro-api-key"}
)
_SIMULATED_HEADER = "x-bitstorm-simulated"
_MARK = re.compile(r"[A-Za-z0-9._-]{1,64}")
# How old a cached answer, and with it the point for "now" at its end, may be: the vendor says 30
# minutes for hourly ranges, 12 hours for daily ones.
_HOURLY_CACHE_S, _DAILY_CACHE_S = 3_600, 13 * 3_600
# How far a clock of ours may be ahead of the server's.
_CLOCK_SLACK_S = 120


class CoinGecko:
    """A client of one plan. A context manager; not to be shared between threads.

    Time-outs and `deadline` are in seconds, the latter for one call with all its retries. The key
    travels in a header only and shows up nowhere else. `calls` counts the HTTP requests made,
    `refused` the values that the checks left out of good answers. `doubtful` says whether the last
    answer had prices among them that are not simply null: where it has no point one may yet come.
    Raises KeyProblem when the plan needs a key and there is none, UsageError when the key would
    travel unencrypted.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        plan: Plan = "keyless",
        api_key: str | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        deadline: float = 300.0,
        retries: int = 5,
        meter: RateLimit | None = None,
        tell: Callable[[str], None] | None = None,
        checks: AnswerChecks | None = None,
        clock: Callable[[], int] = now_ms,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        root = (base_url or ROOTS[plan]).rstrip("/")
        headers = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
        self._key = None if plan == "keyless" else _usable_key(api_key, plan)
        if self._key is not None:
            if urlsplit(root).scheme != "https" and not is_loopback(root):
                raise UsageError(
                    "source.base_url is not https: the key would travel unencrypted; use https, "
                    "or source.plan=keyless"
                )
            headers[_KEY_HEADERS[plan]] = self._key
        self.plan = plan
        self._official = root in ROOTS.values()
        self._clock = clock
        self._checks = AnswerChecks() if checks is None else checks
        self.refused = 0
        self.doubtful = False
        self._mark: str | None = None
        self._answered = False
        self._transport = Transport(
            base_url=root,
            headers=headers,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            deadline=deadline,
            retries=retries,
            meter=meter,
            tell=tell,
            secret=self._key,
            clock=clock,
            sleep=sleep,
            monotonic=monotonic,
        )

    def __repr__(self) -> str:
        key = "none" if self._key is None else "set"
        return f"CoinGecko(host={self._transport.host!r}, plan={self.plan!r}, key={key})"

    def __enter__(self) -> CoinGecko:
        return self

    def __exit__(self, *failure: object) -> None:
        self._transport.close()

    @property
    def calls(self) -> int:
        return self._transport.calls

    @property
    def source(self) -> str:
        """`coingecko`, or `simulated:SEED` when the answers say so.

        A host other than CoinGecko's own is asked once (`/ping`) when it has not answered yet.
        """
        if not self._answered and not self._official:
            self.ping()
        return SOURCE if self._mark is None else f"simulated:{self._mark}"

    def ping(self) -> None:
        """One call that shows whether host, plan and key fit together. Raises SourceError."""
        self._get("/ping", {}, coin=None, currency="", read=lambda content, seen: None)

    def simple_price(self, coin: str, vs_currency: str) -> Observation:
        """The newest observation, stamped with the source's own `last_updated_at`.

        Raises UnknownCoin, UnknownCurrency, and what `market_chart_range` raises.
        """
        return self._get(
            "/simple/price",
            {
                "ids": coin,
                "vs_currencies": vs_currency,
                "include_market_cap": "true",
                "include_24hr_vol": "true",
                "include_24hr_change": "true",
                "include_last_updated_at": "true",
                "precision": "full",
            },
            coin=None,
            currency=vs_currency,
            read=lambda content, seen: self._live(content, seen, coin, vs_currency),
        )

    def _live(self, content: Any, seen: Seen, coin: str, vs_currency: str) -> Observation:
        if not isinstance(content, dict):
            raise self._bad("/simple/price", "is no object")
        if coin not in content:
            raise UnknownCoin(
                f"{self._transport.host} has no price of {coin!r}; set source.coin to an id as in "
                "the coin's address at coingecko.com"
            )
        fields = content[coin]
        if not isinstance(fields, dict):
            raise self._bad("/simple/price", f"has no object under {coin!r}")
        if vs_currency not in fields:
            raise UnknownCurrency(
                f"{self._transport.host} does not quote {coin} in {vs_currency!r}; set "
                "source.vs_currency to a listed one, such as usd"
            )

        def optional(name: str, key: str) -> float | None:
            stamp = fields.get("last_updated_at")
            return self._checks.optional(stamp, name, fields.get(key), seen)

        try:
            price = _number(fields[vs_currency])
            updated = _number(fields.get("last_updated_at"))
            observation = Observation(
                timestamp=0 if updated is None else int(updated) * 1000,
                price=math.nan if price is None else price,
                market_cap=optional("market_cap", f"{vs_currency}_market_cap"),
                volume_24h=optional("volume_24h", f"{vs_currency}_24h_vol"),
                price_change_24h=optional("price_change_24h", f"{vs_currency}_24h_change"),
            )
        except _Shape as shape:
            raise self._bad("/simple/price", str(shape)) from None
        if not observation.price > 0:
            raise BadAnswer(
                f"{self._transport.host} has no price of {coin} in {vs_currency} at the moment "
                f"(it says {fields[vs_currency]}); try again later"
            )
        if updated is None or not GENESIS_MS <= observation.timestamp < SECONDS_BELOW * 1000:
            raise self._bad("/simple/price", "has no last_updated_at in Unix seconds")
        self._checks.check_live(
            seen,
            timestamp=observation.timestamp,
            price=observation.price,
            host=self._transport.host,
            now_ms=self._clock(),
        )
        return observation

    def market_chart_range(
        self, coin: str, vs_currency: str, from_s: int, to_s: int
    ) -> list[Observation]:
        """What lies in [from_s, to_s] (Unix seconds), sorted, without the point for "now".

        Up to a day ending now is 5-minutely, up to 90 days hourly, above that daily. Raises
        UsageError for bounds in the wrong order, unit or in the future, SourceError otherwise:
        Unreachable, RateLimited, HistoryTooOld, KeyProblem, WrongHostForKey, UnknownCoin,
        UnknownCurrency, BadAnswer.
        """
        now_s = self._clock() // 1000
        if not 0 <= from_s <= to_s:
            raise UsageError(
                f"the range runs from {from_s} to {to_s}; expected the older one first"
            )
        if to_s > now_s + _CLOCK_SLACK_S:
            raise UsageError(
                f"the range ends at {to_s}, after now ({now_s}, {iso(now_s * 1000)}); expected "
                "Unix seconds that lie in the past"
            )
        cached_s = _DAILY_CACHE_S if to_s - from_s > 90 * 86_400 else _HOURLY_CACHE_S
        touches_now = to_s >= now_s - cached_s
        points = self._get(
            f"/coins/{quote(coin, safe='')}/market_chart/range",
            {
                "vs_currency": vs_currency,
                "from": str(from_s),
                "to": str(to_s),
                "precision": "full",
            },
            coin=coin,
            currency=vs_currency,
            read=lambda content, seen: self._observations(content, seen, touches_now=touches_now),
        )
        return [point for point in points if from_s * 1000 <= point.timestamp <= to_s * 1000]

    def _get(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        coin: str | None,
        currency: str,
        read: Callable[[Any, Seen], _T],
    ) -> _T:
        """What `read` makes of the JSON of an answer with status 200, its numbers as floats."""
        reply = self._transport.get(path, params)
        host = self._transport.host
        if reply.status != 200:
            raise refusal(reply.status, reply.body, host=host, coin=coin, currency=currency)
        with self._checks.watching(path, params, reply, now_ms=self._clock()) as seen:
            read_out = read(self._content(path, reply), seen)
        self.refused += len(seen.refused)
        self.doubtful = seen.doubtful
        return read_out

    def _content(self, path: str, reply: Reply) -> Any:
        """The JSON of an answer; NaN and Infinity are floats, for the checks to judge them."""
        host = self._transport.host
        self._checks.check_type(reply, host)
        try:
            content = json.loads(reply.body, parse_int=float, parse_float=float)
        except (ValueError, RecursionError):
            words = said(reply.body).message
            raise BadAnswer(
                f"{host} answers {path} with something that is not JSON "
                f'("{words}"); check source.base_url'
            ) from None
        if is_error_body(content):
            what = said(reply.body)
            raise BadAnswer(
                f"{host} answers {path} with HTTP 200 but an error "
                f'({what.code or "no code"}: "{what.message}"); try again later'
            )
        self._note_origin(reply.headers)
        return content

    def _note_origin(self, headers: Mapping[str, str]) -> None:
        mark = headers.get(_SIMULATED_HEADER)
        if mark is not None and not _MARK.fullmatch(mark):
            raise BadAnswer(
                f"{self._transport.host} names an unreadable seed in {_SIMULATED_HEADER}; "
                "check source.base_url"
            )
        if self._answered and mark != self._mark:
            raise BadAnswer(
                f"the answers of {self._transport.host} come from two sources "
                f"({self._mark or SOURCE}, then {mark or SOURCE}); was the simulator restarted? "
                "Run the command again"
            )
        self._mark = mark
        self._answered = True

    def _observations(self, content: Any, seen: Seen, *, touches_now: bool) -> list[Observation]:
        """The chart's three arrays joined on their stamps, sorted, each stamp once.

        Of a stamp that comes twice the first value counts. Where the request touches now, the
        point for "now" is dropped: the array's last one, recognised by its whole seconds (the
        others have milliseconds, but for the daily ones at 00:00 UTC). Points that are no
        observations are left out and noted in `seen`; a chart of nothing else is refused.
        """
        if not isinstance(content, dict):
            raise self._bad("a chart", "is no object")
        try:
            pairs = _pairs(content, "prices")
            caps = _by_stamp(_pairs(content, "market_caps"))
            volumes = _by_stamp(_pairs(content, "total_volumes"))
        except _Shape as shape:
            raise self._bad("a chart", str(shape)) from None
        if touches_now and pairs and _is_current(pairs[-1][0]):
            pairs = pairs[:-1]
        prices = self._checks.prices(pairs, seen, now_ms=self._clock())
        if pairs and not prices:
            first = seen.refused[0].reason
            raise self._bad("a chart", f"has no point that can be used ({first}, and so on)")
        optional = self._checks.optional
        return [
            Observation(
                stamp,
                price,
                optional(stamp, "market_cap", caps.get(stamp), seen),
                optional(stamp, "volume_24h", volumes.get(stamp), seen),
            )
            for stamp, price in prices.items()
        ]

    def _bad(self, what: str, problem: str) -> BadAnswer:
        return BadAnswer(
            f"the answer of {self._transport.host} for {what} {problem}; check source.base_url, "
            "or whether the API has changed"
        )


class _Shape(Exception):
    """The answer is JSON but not what the endpoint promises."""


def _usable_key(key: str | None, plan: Plan) -> str:
    stripped = (key or "").strip()
    if not stripped:
        raise KeyProblem(
            f"the {plan} plan needs a key and {KEY_VARIABLE} is not set; export it, or use "
            "source.plan=keyless"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", stripped):
        raise KeyProblem(
            f"{KEY_VARIABLE} holds characters that no key has; copy the key again, it looks like "
            "CG- and letters and digits"
        )
    return stripped


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, float) or not math.isfinite(value):
        raise _Shape(f"has {str(value)[:40]!r} where a number belongs")
    return value


def _pairs(content: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    array = content.get(key)
    if not isinstance(array, list):
        raise _Shape(f"lacks the array {key!r}")
    for item in array:
        if not isinstance(item, list) or len(item) != 2:
            raise _Shape(f"has {str(item)[:40]!r} in {key!r}; expected [milliseconds, number]")
    return [(stamp, value) for stamp, value in array]


def _by_stamp(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    joined: dict[Any, Any] = {}
    for stamp, value in pairs:
        if isinstance(stamp, float) and joined.get(stamp) is None:
            joined[stamp] = value
    return joined


def _is_current(stamp: Any) -> bool:
    return isinstance(stamp, float) and stamp % 1000 == 0 and stamp % DAY_MS != 0
