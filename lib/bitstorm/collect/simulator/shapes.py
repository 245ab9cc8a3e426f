"""The API's error bodies in the shapes and words that were recorded, by their codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bitstorm.instants import iso

PRICING = "https://www.coingecko.com/en/api/pricing"

_DEMO_HOST, _PRO_HOST = "api.coingecko.com", "pro-api.coingecko.com"


@dataclass(frozen=True)
class Answer:
    """What goes back: `headers` are those besides the ones that every answer has."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body, separators=(",", ":")).encode())


def status_body(code: int, message: str, now_ms: int | None = None) -> dict[str, Any]:
    """`{"status": {…}}`; with `now_ms` (Unix ms) it has a timestamp inside."""
    status: dict[str, Any] = {} if now_ms is None else {"timestamp": _stamp(now_ms)}
    return {"status": {**status, "error_code": code, "error_message": message}}


def refusal(code: int, now_ms: int) -> Answer:
    """The answer for one of REFUSALS, at `now_ms` (Unix ms). Raises KeyError for another code."""
    status, body = REFUSALS[code](now_ms)
    return as_json(body, status)


def html_page() -> Answer:
    """What the network in front of the API says when it does not like the caller."""
    title = "Access denied | api.coingecko.com used Cloudflare to restrict access"
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>1020</body></html>\n"
    return Answer(403, page.encode(), {"Content-Type": "text/html; charset=UTF-8"})


def _agent(now_ms: int) -> tuple[int, Any]:
    return 403, status_body(403, "Please add a descriptive User-Agent to your request.")


def _wrong_key(now_ms: int) -> tuple[int, Any]:
    # What the real one says to a key that it does not know has not been recorded; the vendor's own
    # tests use this.
    return 401, status_body(401, "Invalid API key")


def _no_key(now_ms: int) -> tuple[int, Any]:
    text = (
        "API Key Missing. Please make sure you're using the right authentication method. For Pro "
        "API, please visit: https://docs.coingecko.com/reference/authentication."
    )
    return 401, status_body(10002, text, now_ms)


def _not_in_plan(now_ms: int) -> tuple[int, Any]:
    text = (
        f"This request is limited to PRO API subscribers. Please visit {PRICING} to subscribe to "
        "our API plan to access exclusive endpoints."
    )
    return 401, status_body(10005, text, now_ms)


def _pro_key(now_ms: int) -> tuple[int, Any]:
    return 400, _wrong_host(10010, "Pro", _DEMO_HOST, _PRO_HOST, now_ms)


def _demo_key(now_ms: int) -> tuple[int, Any]:
    return 400, _wrong_host(10011, "Demo", _PRO_HOST, _DEMO_HOST, now_ms)


def _too_old(now_ms: int) -> tuple[int, Any]:
    text = (
        "Your request exceeds the allowed time range. Public API users are limited to querying "
        "historical data within the past 365 days. Upgrade to a paid plan to enjoy full "
        f"historical data access: {PRICING}. "
    )
    return 401, {"error": status_body(10012, text, now_ms)}


def _limited(now_ms: int) -> tuple[int, Any]:
    text = (
        f"You've exceeded the Rate Limit. Please visit {PRICING} to subscribe to our API plans "
        "for higher rate limits."
    )
    return 429, status_body(429, text)


REFUSALS: Mapping[int, Callable[[int], tuple[int, Any]]] = MappingProxyType(
    {
        401: _wrong_key,
        403: _agent,
        429: _limited,
        10002: _no_key,
        10005: _not_in_plan,
        10010: _pro_key,
        10011: _demo_key,
        10012: _too_old,
    }
)


def _wrong_host(code: int, key: str, found: str, right: str, now_ms: int) -> dict[str, Any]:
    text = f"If you are using {key} API key, please change your root URL from {found} to {right}"
    return {
        "timestamp": _stamp(now_ms),
        "error_code": code,
        "status": {"error_message": text},
    }


def _stamp(now_ms: int) -> str:
    return f"{iso(now_ms - now_ms % 1000)[:-1]}.{now_ms % 1000:03d}+00:00"
