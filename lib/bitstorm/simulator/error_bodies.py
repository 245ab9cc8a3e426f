"""The API's recorded error bodies, by their codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bitstorm.core.time import iso

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
