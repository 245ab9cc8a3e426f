"""The client of CoinGecko's API v3: live price and history, as observations or as clear errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from bitstorm import __version__
from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko import error_responses
from bitstorm.collect.coingecko.answer_checks import AnswerChecks, Inspection
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from bitstorm.collect.coingecko.route import is_loopback
from bitstorm.collect.coingecko.transport import Reply, Transport, TransportOptions
from bitstorm.core.errors import BadAnswer, KeyProblem, UnknownCoin, UnknownCurrency, UsageError
from bitstorm.core.schema import GENESIS_MS, SECONDS_BELOW
from bitstorm.core.time import DAY_MS, iso

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
# The greatest age of a cached answer, whose last point stands for "now": the vendor says 30 minutes
# for hourly ranges, 12 hours for daily ones.
_HOURLY_CACHE_S, _DAILY_CACHE_S = 3_600, 13 * 3_600
# Our clock can be ahead of the server's by this much.
_CLOCK_SLACK_S = 120


class CoinGecko:
    """A client of one plan. A context manager; not for use by several threads.

    The key travels in a header only and appears nowhere else. `calls` counts the HTTP requests,
    `refused` the values that the checks left out of good answers. `doubtful` is true when the last
    answer had unreadable prices: an hour without a point can still get one. Raises KeyProblem when
    the plan needs a key and there is none, UsageError when the key would travel unencrypted.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        plan: Plan = "keyless",
        api_key: str | None = None,
        checks: AnswerChecks | None = None,
        options: TransportOptions | None = None,
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
        self.refused = 0
        self.doubtful = False
        self._official = root in ROOTS.values()
        self._mark: str | None = None
        self._answered = False
        self._checks = checks or AnswerChecks()
        options = options or TransportOptions()
        self._clock = options.clock
        self._transport = Transport(root, headers, secret=self._key, options=options)

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

        Calls `/ping` once when a host other than CoinGecko's own has not answered yet.
        """
        if not self._answered and not self._official:
            self.ping()
        return SOURCE if self._mark is None else f"simulated:{self._mark}"

    def ping(self) -> None:
        """One call that shows whether host, plan and key fit together. Raises SourceError."""
        self._get("/ping", {}, read=lambda content, seen: None)

    def simple_price(self, coin: str, vs_currency: str) -> Observation:
        """The newest observation, stamped with the source's own `last_updated_at`.

        Raises UnknownCoin, UnknownCurrency, and the errors of `market_chart_range`.
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
            currency=vs_currency,
            read=lambda content, seen: self._live(content, seen, coin, vs_currency),
        )

    def _live(self, content: Any, seen: Inspection, coin: str, vs_currency: str) -> Observation:
        host = self._transport.host
        if not isinstance(content, dict):
            raise _Shape("is not an object")
        if coin not in content:
            raise UnknownCoin(
                f"{host} has no price of {coin!r}; set source.coin to an id as in the coin's "
                "address at coingecko.com"
            )
        fields = content[coin]
        if not isinstance(fields, dict):
            raise _Shape(f"has no object under {coin!r}")
        if vs_currency not in fields:
            raise UnknownCurrency(
                f"{host} does not quote {coin} in {vs_currency!r}; set source.vs_currency to a "
                "listed one, such as usd"
            )
        price = _number(fields[vs_currency])
        updated = _number(fields.get("last_updated_at"))
        if price is None or price <= 0:
            raise BadAnswer(
                f"{host} has no price of {coin} in {vs_currency} at the moment "
                f"(it says {fields[vs_currency]}); try again later"
            )
        timestamp = int(updated or 0) * 1000
        if not GENESIS_MS <= timestamp < SECONDS_BELOW * 1000:
            raise _Shape("has no last_updated_at in Unix seconds")

        def optional(name: str, key: str) -> float | None:
            return self._checks.optional(updated, name, fields.get(f"{vs_currency}_{key}"), seen)

        observation = Observation(
            timestamp,
            price,
            market_cap=optional("market_cap", "market_cap"),
            volume_24h=optional("volume_24h", "24h_vol"),
            price_change_24h=optional("price_change_24h", "24h_change"),
        )
        self._checks.check_live(
            seen, timestamp=timestamp, price=price, host=host, now_ms=self._clock()
        )
        return observation

    def market_chart_range(
        self, coin: str, vs_currency: str, from_s: int, to_s: int
    ) -> list[Observation]:
        """The observations in [from_s, to_s] (Unix seconds), sorted, without the point for "now".

        Up to a day that ends now is 5-minutely, up to 90 days hourly, above daily. Raises
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
                "Unix seconds in the past"
            )
        cached_s = _DAILY_CACHE_S if to_s - from_s > 90 * 86_400 else _HOURLY_CACHE_S
        touches_now = to_s >= now_s - cached_s
        points = self._get(
            f"/coins/{quote(coin, safe='')}/market_chart/range",
            {"vs_currency": vs_currency, "from": str(from_s), "to": str(to_s), "precision": "full"},
            coin=coin,
            currency=vs_currency,
            read=lambda content, seen: self._chart(content, seen, touches_now=touches_now),
        )
        return [point for point in points if from_s * 1000 <= point.timestamp <= to_s * 1000]

    def _chart(self, content: Any, seen: Inspection, *, touches_now: bool) -> list[Observation]:
        """The chart's three arrays joined on their stamps, sorted, each stamp once.

        The first value counts where a stamp comes twice. Where the request touches now, the point
        for "now" is dropped: the last of the array, recognised by its whole seconds (the others
        have milliseconds, except daily ones at 00:00 UTC). What is bad is left out and noted in
        `seen`: a point, a cap, a volume, or all caps. A chart without a good point is refused.
        """
        if not isinstance(content, dict):
            raise _Shape("is not an object")
        pairs = _pairs(content, "prices", "price", seen)
        if touches_now and pairs and _is_current(pairs[-1][0]):
            pairs = pairs[:-1]
        prices = self._checks.prices(pairs, seen, now_ms=self._clock())
        caps = _by_stamp(_pairs(content, "market_caps", "market_cap", seen))
        volumes = _by_stamp(_pairs(content, "total_volumes", "volume_24h", seen))
        if seen.refused and not prices:
            raise _Shape(f"has no usable point ({seen.refused[0].reason})")
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

    def _get(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        coin: str | None = None,
        currency: str = "",
        read: Callable[[Any, Inspection], _T],
    ) -> _T:
        """The result of `read` for the JSON of an answer with status 200, its numbers as floats."""
        reply = self._transport.get(path, params)
        host = self._transport.host
        if reply.status != 200:
            raise error_responses.refusal(
                reply.status,
                reply.body,
                host=host,
                coin=coin,
                currency=currency,
                keyless=self._key is None,
            )
        with self._checks.archive_refused(path, params, reply, now_ms=self._clock()) as seen:
            try:
                result = read(self._content(path, reply), seen)
            except _Shape as shape:
                raise BadAnswer(
                    f"the answer of {host} for {path} {shape}; check source.base_url, or whether "
                    "the API has changed"
                ) from None
        self.refused += len(seen.refused)
        self.doubtful = seen.doubtful
        return result

    def _content(self, path: str, reply: Reply) -> Any:
        """The JSON of an answer; NaN and Infinity are floats, which the checks refuse later."""
        host = self._transport.host
        self._checks.check_type(reply, host)
        try:
            content = json.loads(reply.body, parse_int=float, parse_float=float)
        except (ValueError, RecursionError):
            words = error_responses.error_details(reply.body).message
            raise BadAnswer(
                f'{host} answers {path} with something that is not JSON ("{words}"); check '
                "source.base_url"
            ) from None
        if error_responses.is_error_body(content):
            details = error_responses.error_details(reply.body)
            raise BadAnswer(
                f"{host} answers {path} with HTTP 200 but an error "
                f'({details.code or "no code"}: "{details.message}"); try again later'
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


class _Shape(Exception):
    """The answer is JSON, but its shape is wrong for the endpoint."""


def _usable_key(key: str | None, plan: Plan) -> str:
    stripped = (key or "").strip()
    if not stripped:
        raise KeyProblem(
            f"the {plan} plan needs a key and {KEY_VARIABLE} is not set; export it, or use "
            "source.plan=keyless"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", stripped):
        raise KeyProblem(
            f"{KEY_VARIABLE} holds characters that no key has; copy the key again: CG-, then "
            "letters and digits"
        )
    return stripped


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, float) or not math.isfinite(value):
        raise _Shape(f"has {str(value)[:40]!r} instead of a number")
    return value


def _pairs(
    content: Mapping[str, Any], key: str, name: str, seen: Inspection
) -> list[tuple[Any, Any]]:
    """The pairs of an array; what is none is noted in `seen`, as a `name` without a time."""
    array = content.get(key)
    if not isinstance(array, list):
        seen.refuse(None, name, None, f"{name}_present", f"it lacks the array {key!r}")
        return []
    pairs = []
    for item in array:
        if isinstance(item, list) and len(item) == 2:
            pairs.append((item[0], item[1]))
        else:
            reason = f"{str(item)[:40]!r} in {key!r} is not [milliseconds, number]"
            seen.refuse(None, name, item, f"{name}_readable", reason)
    return pairs


def _by_stamp(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    joined: dict[Any, Any] = {}
    for stamp, value in pairs:
        if isinstance(stamp, float) and joined.get(stamp) is None:
            joined[stamp] = value
    return joined


def _is_current(stamp: Any) -> bool:
    return isinstance(stamp, float) and stamp % 1000 == 0 and stamp % DAY_MS != 0
