"""What the API answers to a request: pure functions of the market, the moment and the plan.

Shapes, texts and status codes follow CoinGecko's API v3 as it was recorded; where it is not known
what the API does, the comment says what is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, iso
from bitstorm.simulator.error_bodies import Answer, as_json, refusal
from bitstorm.simulator.market import (
    FIVE_MINUTES_MS,
    MARKET_START_MS,
    Floats,
    Ints,
    Market,
    daily,
    five_minutely,
    hourly,
)

Plan = Literal["keyless", "demo", "pro"]

PREFIX = "/api/v3"
COIN = "bitcoin"
# Units of a currency for a US dollar: the simulated market has one price and fixed rates.
CURRENCIES: Mapping[str, float] = MappingProxyType(
    {
        "usd": 1.0, "aud": 1.52, "brl": 5.4, "cad": 1.37, "chf": 0.88, "cny": 7.2, "czk": 23.1,
        "dkk": 6.86, "eur": 0.92, "gbp": 0.79, "hkd": 7.8, "huf": 362.0, "idr": 15_900.0,
        "ils": 3.7, "inr": 83.5, "jpy": 150.0, "krw": 1_350.0, "mxn": 17.5, "nok": 10.6,
        "nzd": 1.64, "php": 57.0, "pln": 3.95, "sar": 3.75, "sek": 10.5, "sgd": 1.35,
        "thb": 35.5, "try": 32.5, "twd": 32.0, "zar": 18.5,
    }
)  # fmt: skip
OHLC_DAYS = (1, 7, 14, 30, 90, 180, 365)


@dataclass(frozen=True)
class Service:
    """Which host this is and for whom: with `keys` any other key is refused.

    `/key` shows the calls a minute, and the month's credits with those spent.
    """

    plan: Plan
    keys: Collection[str] | None = None
    per_minute: int = 1000
    per_month: int = 1_000_000
    spent: int = 0


@dataclass(frozen=True)
class Ask:
    """One request: `query` holds the last value of each parameter, `headers` lower-case names."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def answer(ask: Ask, *, market: Market, now_ms: int, service: Service) -> Answer:
    """The answer to a GET at `now_ms` (Unix ms) of someone who is `admitted`."""
    try:
        return as_json(_routed(ask)(ask, market, now_ms, service))
    except _Refused as refused:
        return refused.answer


def admitted(ask: Ask, *, now_ms: int, service: Service) -> Answer | None:
    """The refusal that headers and keys alone lead to, None when the request may pass."""
    if not ask.headers.get("user-agent", "").strip():
        return refusal(403, now_ms)
    demo = ask.headers.get("x-cg-demo-api-key") or ask.query.get("x_cg_demo_api_key")
    pro = ask.headers.get("x-cg-pro-api-key") or ask.query.get("x_cg_pro_api_key")
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


_Endpoint = Callable[[Ask, Market, int, Service], Any]


def _routed(ask: Ask) -> _Endpoint:
    parts = ask.path.removeprefix(PREFIX).strip("/").split("/")
    if not ask.path.startswith(PREFIX + "/"):
        raise _Refused(as_json({"error": "Incorrect path"}, 404))
    match parts:
        case ["ping"]:
            return _ping
        case ["key"]:
            return _key
        case ["simple", "price"]:
            return _simple_price
        case ["simple", "supported_vs_currencies"]:
            return _supported
        case ["coins", "markets"]:
            return _markets
        case ["coins", coin, "market_chart"]:
            return _market_chart if coin == COIN else _unknown_coin
        case ["coins", coin, "market_chart", "range"]:
            return _market_chart_range if coin == COIN else _unknown_coin
        case ["coins", coin, "ohlc"]:
            return _ohlc if coin == COIN else _unknown_coin
    raise _Refused(as_json({"error": "Incorrect path"}, 404))


def _ping(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    return {"gecko_says": "(V3) To the Moon!"}


def _key(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
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


def _supported(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    return list(CURRENCIES)


def _unknown_coin(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    raise _Refused(as_json({"error": "coin not found"}, 404))


def _simple_price(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    # A coin or currency that is not known is left out; so is one with a space before its name.
    coins = _required(ask, "ids").split(",")
    currencies = _required(ask, "vs_currencies").split(",")
    if COIN not in coins:
        return {}
    node = now_ms // MINUTE_MS * MINUTE_MS
    price, cap, volume, change = _columns(market, np.array([node]))
    fields: dict[str, Any] = {}
    for currency in currencies:
        rate = CURRENCIES.get(currency)
        if rate is None:
            continue
        fields[currency] = _rounded(price[0] * rate, ask.query.get("precision"))
        if _wants(ask, "include_market_cap"):
            fields[f"{currency}_market_cap"] = _number(cap[0] * rate)
        if _wants(ask, "include_24hr_vol"):
            fields[f"{currency}_24h_vol"] = _number(volume[0] * rate)
        if _wants(ask, "include_24hr_change"):
            fields[f"{currency}_24h_change"] = _number(change[0])
    if fields and _wants(ask, "include_last_updated_at"):
        fields["last_updated_at"] = node // 1000
    return {COIN: fields}


def _market_chart(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(ask)
    text = _required(ask, "days")
    whole_history = (now_ms - MARKET_START_MS) // DAY_MS
    days = whole_history if text == "max" else _whole(text, "days")
    if service.plan != "pro" and (text == "max" or days > 365):
        raise _Refused(refusal(10012, now_ms))
    days = max(1, min(days, whole_history))
    first = now_ms - days * DAY_MS
    interval = ask.query.get("interval")
    if interval == "daily" or (days > 90 and interval != "hourly"):
        points = daily(first, now_ms)
    elif days == 1 and interval != "hourly":
        points = five_minutely(market.seed, first, now_ms)
    else:
        points = hourly(market.seed, first, now_ms)
    return _chart(market, points, rate, ask, current_ms=now_ms)


def _market_chart_range(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(ask)
    asked_first = _whole(_required(ask, "from"), "from") * 1000
    asked_last = _whole(_required(ask, "to"), "to") * 1000
    if service.plan != "pro" and asked_first < now_ms - 365 * DAY_MS:
        raise _Refused(refusal(10012, now_ms))
    # Not known of the API: bounds are included here, a `to` in the future is taken as now, and
    # a range without points, `from` after `to` among them, is three empty arrays.
    first, last = max(asked_first, MARKET_START_MS), min(asked_last, now_ms)
    if first > last:
        return _chart(market, np.array([], dtype=np.int64), rate, ask, current_ms=None)
    span = asked_last - asked_first
    touches_now = asked_last >= now_ms // MINUTE_MS * MINUTE_MS
    if span > 90 * DAY_MS:
        points = daily(first, last)
    elif span <= DAY_MS and asked_last >= now_ms - FIVE_MINUTES_MS:
        points = five_minutely(market.seed, first, last)
    else:
        points = hourly(market.seed, first, last)
    return _chart(market, points, rate, ask, current_ms=last if touches_now else None)


def _chart(
    market: Market, points: Ints, rate: float, ask: Ask, *, current_ms: int | None
) -> dict[str, Any]:
    """The three arrays. With `current_ms` the newest price comes last, in whole seconds.

    The price holds from its minute's beginning, so a regular point of the running minute is
    followed by an older stamp with the same price, as in one of the recordings.
    """
    if current_ms is not None:
        points = np.append(points, current_ms // MINUTE_MS * MINUTE_MS)
    price, cap, volume, _ = _columns(market, points)
    prices = [_rounded(p * rate, ask.query.get("precision", "full")) for p in price]
    times = points.tolist()
    return {
        "prices": [[t, p] for t, p in zip(times, prices, strict=True)],
        "market_caps": [[t, _number(c * rate)] for t, c in zip(times, cap, strict=True)],
        "total_volumes": [[t, _number(v * rate)] for t, v in zip(times, volume, strict=True)],
    }


def _ohlc(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(ask)
    days = _whole(_required(ask, "days"), "days")
    if days not in OHLC_DAYS:
        raise _Refused(as_json({"error": "Invalid days parameter"}, 400))
    candle = HOUR_MS // 2 if days <= 2 else 4 * HOUR_MS if days <= 30 else 4 * DAY_MS
    # The running candle is stamped with its close, which lies ahead.
    close = -(-now_ms // candle) * candle
    closes = np.arange(close - (days * DAY_MS // candle - 1) * candle, close + 1, candle)
    closes = closes[closes - candle >= MARKET_START_MS]
    minutes = np.arange(closes[0] - candle, now_ms + 1, MINUTE_MS)
    price = market.price(minutes) * rate
    starts = np.searchsorted(minutes, closes - candle)
    ends = np.append(starts[1:], len(minutes)) - 1
    high, low = np.maximum.reduceat(price, starts), np.minimum.reduceat(price, starts)
    rows = zip(closes.tolist(), price[starts], high, low, price[ends], strict=True)
    precision = ask.query.get("precision")
    return [[t, *(_rounded(p, precision) for p in row)] for t, *row in rows]


def _markets(ask: Ask, market: Market, now_ms: int, service: Service) -> Any:
    rate = _rate(ask)
    if COIN not in ask.query.get("ids", COIN).split(","):
        return []
    node = now_ms // MINUTE_MS * MINUTE_MS
    price, cap, volume, change = (column[0] for column in _columns(market, np.array([node])))
    day = market.price(np.arange(max(node - DAY_MS, MARKET_START_MS), node + 1, MINUTE_MS)) * rate
    return [
        {
            "id": COIN,
            "symbol": "btc",
            "name": "Bitcoin",
            # A text in every answer and in the vendor's model, which takes no null here.
            "image": "https://assets.coingecko.com/coins/images/1/large/bitcoin.png",
            "current_price": _rounded(price * rate, ask.query.get("precision")),
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


def _columns(market: Market, times: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    quotes = market.quotes(times)
    return quotes.price, quotes.market_cap, quotes.volume_24h, quotes.price_change_24h


def _required(ask: Ask, name: str) -> str:
    value = ask.query.get(name, "")
    if not value:
        raise _Refused(as_json({"error": f"Missing parameter {name}"}, 422))
    return value


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _Refused(as_json({"error": f"invalid {name}"}, 400))
    return int(text)


def _rate(ask: Ask) -> float:
    rate = CURRENCIES.get(_required(ask, "vs_currency"))
    if rate is None:
        raise _Refused(as_json({"error": "invalid vs_currency"}, 400))
    return rate


def _wants(ask: Ask, name: str) -> bool:
    return ask.query.get(name) == "true"


def _rounded(value: float, precision: str | None) -> int | float | None:
    if precision == "full":
        return _number(value)
    if precision is not None and precision.isdigit() and int(precision) <= 18:
        return _number(round(float(value), int(precision)))
    return _number(round(float(value), 0 if value >= 1000 else 2))


def _number(value: float) -> int | float | None:
    """As the API writes it: null for what is not there, no decimal point on whole numbers."""
    number = float(value)
    if number != number:
        return None
    return int(number) if number.is_integer() else number
