"""The API's answer to a request: pure functions of the market, the moment and the plan.

Shapes, texts and status codes follow recordings of CoinGecko's API v3; a comment marks each
behaviour without a recording.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, iso
from bitstorm.simulator import market as timeline
from bitstorm.simulator.market import FIVE_MINUTES_MS, MARKET_START_MS, Ints, Market

PRICING = "https://www.coingecko.com/en/api/pricing"

_DEMO_HOST, _PRO_HOST = "api.coingecko.com", "pro-api.coingecko.com"
_WRONG_HOST = "If you are using {} API key, please change your root URL from {} to {}"


@dataclass(frozen=True)
class Answer:
    """An answer; `headers` are in addition to the headers of every answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body, separators=(",", ":")).encode())


# HTTP status and words by code. There is no recording of an unknown key (401); the vendor's own
# tests use these words.
REFUSALS: Mapping[int, tuple[int, str]] = MappingProxyType(
    {
        401: (401, "Invalid API key"),
        403: (403, "Please add a descriptive User-Agent to your request."),
        429: (
            429,
            f"You've exceeded the Rate Limit. Please visit {PRICING} to subscribe to our API plans "
            "for higher rate limits.",
        ),
        10002: (
            401,
            "API Key Missing. Please make sure you're using the right authentication method. For "
            "Pro API, please visit: https://docs.coingecko.com/reference/authentication.",
        ),
        10005: (
            401,
            f"This request is limited to PRO API subscribers. Please visit {PRICING} to subscribe "
            "to our API plan to access exclusive endpoints.",
        ),
        10010: (400, _WRONG_HOST.format("Pro", _DEMO_HOST, _PRO_HOST)),
        10011: (400, _WRONG_HOST.format("Demo", _PRO_HOST, _DEMO_HOST)),
        10012: (
            401,
            "Your request exceeds the allowed time range. Public API users are limited to querying "
            "historical data within the past 365 days. Upgrade to a paid plan to enjoy full "
            f"historical data access: {PRICING}. ",
        ),
    }
)


def refusal(code: int, now_ms: int) -> Answer:
    """The answer for one of REFUSALS, at `now_ms` (Unix ms). Raises KeyError for another code."""
    status, words = REFUSALS[code]
    stamp = {"timestamp": f"{iso(now_ms - now_ms % 1000)[:-1]}.{now_ms % 1000:03d}+00:00"}
    if code in (10010, 10011):
        body = {**stamp, "error_code": code, "status": {"error_message": words}}
        return as_json(body, status)
    # The API's own codes come with a time stamp.
    stated = {**(stamp if code > 1000 else {}), "error_code": code, "error_message": words}
    return as_json({"error": {"status": stated}} if code == 10012 else {"status": stated}, status)


Plan = Literal["keyless", "demo", "pro"]

PREFIX = "/api/v3"
COIN = "bitcoin"
# Units of each currency per US dollar: the simulated market has one price and fixed rates.
CURRENCIES: Mapping[str, float] = MappingProxyType(
    {
        "usd": 1.0, "aud": 1.52, "brl": 5.4, "cad": 1.37, "chf": 0.88, "cny": 7.2, "czk": 23.1,
        "dkk": 6.86, "eur": 0.92, "gbp": 0.79, "hkd": 7.8, "huf": 362.0, "idr": 15_900.0,
        "ils": 3.7, "inr": 83.5, "jpy": 150.0, "krw": 1_350.0, "mxn": 17.5, "nok": 10.6,
        "nzd": 1.64, "php": 57.0, "pln": 3.95, "sar": 3.75, "sek": 10.5, "sgd": 1.35,
        "thb": 35.5, "try": 32.5, "twd": 32.0, "zar": 18.5,
    }
)  # fmt: skip
_CHARTS = ("market_chart", "market_chart/range", "ohlc")
OHLC_DAYS = (1, 7, 14, 30, 90, 180, 365)


@dataclass(frozen=True)
class Service:
    """The host's plan; `keys` are the accepted keys (None: any).

    `/key` shows the calls a minute, the month's credits, and the spent ones.
    """

    plan: Plan
    keys: Collection[str] | None = None
    per_minute: int = 1000
    per_month: int = 1_000_000
    spent: int = 0


@dataclass(frozen=True)
class Request:
    """One request: `query` holds the last value of each parameter, `headers` lower-case names."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def answer(request: Request, *, market: Market, now_ms: int, service: Service) -> Answer:
    """The answer to a GET at `now_ms` (Unix ms) that passed `access_refusal`."""
    try:
        return as_json(_content(request, market, now_ms, service))
    except _Refused as refused:
        return refused.answer


def access_refusal(request: Request, *, now_ms: int, service: Service) -> Answer | None:
    """The refusal for wrong headers or keys, None for a good request."""
    if not request.headers.get("user-agent", "").strip():
        return refusal(403, now_ms)
    demo = request.headers.get("x-cg-demo-api-key") or request.query.get("x_cg_demo_api_key")
    pro = request.headers.get("x-cg-pro-api-key") or request.query.get("x_cg_pro_api_key")
    if service.plan == "pro" and demo:
        return refusal(10011, now_ms)
    if service.plan == "pro" and not pro:
        return refusal(10002, now_ms)
    if service.plan != "pro" and pro:
        return refusal(10010, now_ms)
    key = demo or pro
    if key and service.keys is not None and key not in service.keys:
        return refusal(401, now_ms)
    return None


def _content(request: Request, market: Market, now_ms: int, service: Service) -> Any:
    inside = request.path.startswith(f"{PREFIX}/")
    match request.path.removeprefix(PREFIX).strip("/").split("/") if inside else []:
        case ["ping"]:
            return {"gecko_says": "(V3) To the Moon!"}
        case ["key"]:
            return _key(now_ms, service)
        case ["simple", "price"]:
            return _simple_price(request, market, now_ms)
        case ["simple", "supported_vs_currencies"]:
            return list(CURRENCIES)
        case ["coins", "markets"]:
            return _markets(request, market, now_ms)
        case ["coins", coin, *chart] if coin != COIN and "/".join(chart) in _CHARTS:
            raise _Refused(as_json({"error": "coin not found"}, 404))
        case ["coins", _, "market_chart"]:
            return _market_chart(request, market, now_ms, service)
        case ["coins", _, "market_chart", "range"]:
            return _market_chart_range(request, market, now_ms, service)
        case ["coins", _, "ohlc"]:
            return _ohlc(request, market, now_ms)
    raise _Refused(as_json({"error": "Incorrect path"}, 404))


def _key(now_ms: int, service: Service) -> Any:
    if service.plan != "pro":
        raise _Refused(refusal(10005, now_ms))
    minute, month = service.per_minute, service.per_month
    return {
        "plan": "Other",
        "rate_limit_request_per_minute": minute,
        "monthly_call_credit": month,
        "current_total_monthly_calls": service.spent,
        "current_remaining_monthly_calls": max(0, month - service.spent),
        "api_key_rate_limit_request_per_minute": minute,
        "api_key_monthly_call_credit": month,
        "api_key_current_total_monthly_calls": service.spent,
    }


def _simple_price(request: Request, market: Market, now_ms: int) -> Any:
    # The API leaves out an unknown coin or currency, also one with a space before its name.
    coins = _required(request, "ids").split(",")
    currencies = _required(request, "vs_currencies").split(",")
    if COIN not in coins:
        return {}
    node = now_ms // MINUTE_MS * MINUTE_MS
    price, cap, volume, change = (float(column[0]) for column in market.quotes([node]))
    wanted = {name for name, value in request.query.items() if value == "true"}
    fields: dict[str, Any] = {}
    for currency in currencies:
        rate = CURRENCIES.get(currency)
        if rate is None:
            continue
        fields[currency] = _rounded(price * rate, request.query.get("precision"))
        for option, name, value in (
            ("include_market_cap", "market_cap", cap * rate),
            ("include_24hr_vol", "24h_vol", volume * rate),
            ("include_24hr_change", "24h_change", change),
        ):
            if option in wanted:
                fields[f"{currency}_{name}"] = _number(value)
    if fields and "include_last_updated_at" in wanted:
        fields["last_updated_at"] = node // 1000
    return {COIN: fields}


def _market_chart(request: Request, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(request)
    text = _required(request, "days")
    whole_history = (now_ms - MARKET_START_MS) // DAY_MS
    days = whole_history if text == "max" else _whole(text, "days")
    if service.plan != "pro" and (text == "max" or days > 365):
        raise _Refused(refusal(10012, now_ms))
    days = max(1, min(days, whole_history))
    first = now_ms - days * DAY_MS
    interval = request.query.get("interval")
    if interval == "daily" or (days > 90 and interval != "hourly"):
        points = timeline.daily(first, now_ms)
    elif days == 1 and interval != "hourly":
        points = timeline.five_minutely(market.seed, first, now_ms)
    else:
        points = timeline.hourly(market.seed, first, now_ms)
    return _chart(market, points, rate, request, current_ms=now_ms)


def _market_chart_range(request: Request, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(request)
    start, end = (_whole(_required(request, name), name) * 1000 for name in ("from", "to"))
    if service.plan != "pro" and start < now_ms - 365 * DAY_MS:
        raise _Refused(refusal(10012, now_ms))
    # Without a recording: bounds are included, a `to` in the future means now, and a range without
    # points (`from` after `to` too) gives three empty arrays.
    first, last = max(start, MARKET_START_MS), min(end, now_ms)
    if first > last:
        return _chart(market, np.array([], dtype=np.int64), rate, request, current_ms=None)
    span = end - start
    touches_now = end >= now_ms // MINUTE_MS * MINUTE_MS
    if span > 90 * DAY_MS:
        points = timeline.daily(first, last)
    elif span <= DAY_MS and end >= now_ms - FIVE_MINUTES_MS:
        points = timeline.five_minutely(market.seed, first, last)
    else:
        points = timeline.hourly(market.seed, first, last)
    return _chart(market, points, rate, request, current_ms=last if touches_now else None)


def _chart(
    market: Market, points: Ints, rate: float, request: Request, *, current_ms: int | None
) -> dict[str, Any]:
    """The three arrays. With `current_ms` the newest price comes last, in whole seconds.

    A price holds from the start of its minute, so an older stamp with the same price can follow a
    regular point of the running minute, as in one of the recordings.
    """
    if current_ms is not None:
        points = np.append(points, current_ms // MINUTE_MS * MINUTE_MS)
    price, cap, volume, _ = market.quotes(points)
    prices = [_rounded(p * rate, request.query.get("precision", "full")) for p in price]
    times = points.tolist()
    return {
        "prices": [[t, p] for t, p in zip(times, prices, strict=True)],
        "market_caps": [[t, _number(c * rate)] for t, c in zip(times, cap, strict=True)],
        "total_volumes": [[t, _number(v * rate)] for t, v in zip(times, volume, strict=True)],
    }


def _ohlc(request: Request, market: Market, now_ms: int) -> Any:
    rate = _rate(request)
    days = _whole(_required(request, "days"), "days")
    if days not in OHLC_DAYS:
        raise _Refused(as_json({"error": "Invalid days parameter"}, 400))
    candle = HOUR_MS // 2 if days <= 2 else 4 * HOUR_MS if days <= 30 else 4 * DAY_MS
    # The stamp of the running candle is its close, in the future.
    close = -(-now_ms // candle) * candle
    closes = np.arange(close - (days * DAY_MS // candle - 1) * candle, close + 1, candle)
    closes = closes[closes - candle >= MARKET_START_MS]
    minutes = np.arange(closes[0] - candle, now_ms + 1, MINUTE_MS)
    price = market.price(minutes) * rate
    starts = np.searchsorted(minutes, closes - candle)
    ends = np.append(starts[1:], len(minutes)) - 1
    high, low = np.maximum.reduceat(price, starts), np.minimum.reduceat(price, starts)
    rows = zip(closes.tolist(), price[starts], high, low, price[ends], strict=True)
    precision = request.query.get("precision")
    return [[t, *(_rounded(p, precision) for p in row)] for t, *row in rows]


def _markets(request: Request, market: Market, now_ms: int) -> Any:
    rate = _rate(request)
    if COIN not in request.query.get("ids", COIN).split(","):
        return []
    node = now_ms // MINUTE_MS * MINUTE_MS
    price, cap, volume, change = (column[0] for column in market.quotes([node]))
    day = market.price(np.arange(max(node - DAY_MS, MARKET_START_MS), node + 1, MINUTE_MS)) * rate
    return [
        {
            "id": COIN,
            "symbol": "btc",
            "name": "Bitcoin",
            # Always a text in the API; the vendor's model refuses null here.
            "image": "https://assets.coingecko.com/coins/images/1/large/bitcoin.png",
            "current_price": _rounded(price * rate, request.query.get("precision")),
            "market_cap": _number(cap * rate),
            "market_cap_rank": 1,
            "fully_diluted_valuation": _number(21_000_000 * price * rate),
            "total_volume": _number(volume * rate),
            "high_24h": _number(day.max()),
            "low_24h": _number(day.min()),
            "price_change_24h": _number(day[-1] - day[0]),
            "price_change_percentage_24h": _number(change),
            "market_cap_change_24h": None,
            "market_cap_change_percentage_24h": None,
            "circulating_supply": _number(cap / price),
            "total_supply": 21_000_000,
            "max_supply": 21_000_000,
            "ath": None,
            "ath_change_percentage": None,
            "ath_date": None,
            "atl": None,
            "atl_change_percentage": None,
            "atl_date": None,
            "roi": None,
            # A node is a whole minute; the API has milliseconds here.
            "last_updated": iso(node).replace("Z", ".000Z"),
        }
    ]


def _required(request: Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise _Refused(as_json({"error": f"Missing parameter {name}"}, 422))
    return value


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _Refused(as_json({"error": f"invalid {name}"}, 400))
    return int(text)


def _rate(request: Request) -> float:
    rate = CURRENCIES.get(_required(request, "vs_currency"))
    if rate is None:
        raise _Refused(as_json({"error": "invalid vs_currency"}, 400))
    return rate


def _rounded(value: float, precision: str | None) -> int | float | None:
    if precision == "full":
        return _number(value)
    if precision is not None and precision.isdigit() and int(precision) <= 18:
        return _number(round(float(value), int(precision)))
    return _number(round(float(value), 0 if value >= 1000 else 2))


def _number(value: float) -> int | float | None:
    """As the API writes it: null for NaN, no decimal point on whole numbers."""
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else number
