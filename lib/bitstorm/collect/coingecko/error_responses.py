"""The error answers of the API in their five shapes, turned into this project's errors.

    A  {"error": "coin not found"}
    B  {"status": {"error_code": 429, "error_message": "…"}}
    C  {"error": {"status": {"error_code": 10012, "error_message": "…"}}}
    D  {"error_code": 10010, "status": {"error_message": "…"}}
    E  no JSON: HTML, a bare word, nothing; and once {"status": 500, "error": "…"}

The HTTP status decides first; code and text of the body make it precise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitstorm.core.errors import (
    BadAnswer,
    HistoryTooOld,
    KeyProblem,
    SourceError,
    UnknownCoin,
    UnknownCurrency,
    WrongHostForKey,
)

KEY_VARIABLE = "COINGECKO_API_KEY"

_TEXT_LENGTH = 200
_TOO_OLD = (10012,)
_WRONG_HOST = (10010, 10011)
_KEY = (10002, 10005)


@dataclass(frozen=True)
class Said:
    """What the server said went wrong; `code` is its own, where the body has one."""

    code: int | None
    message: str


def said(body: bytes) -> Said:
    """Code and message of an error body of any shape; an empty body has an empty message."""
    text = body[:65536].decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return Said(None, _readable(text))
    if not isinstance(content, dict):
        return Said(None, _readable(text))
    error = content.get("error")
    holders = [content.get("status"), error.get("status") if isinstance(error, dict) else None]
    codes = [*(_get(holder, "error_code") for holder in holders), content.get("error_code")]
    messages = [*(_get(holder, "error_message") for holder in holders), error]
    message = next((m for m in messages if isinstance(m, str) and m.strip()), text)
    return Said(_first_int(codes), _readable(message))


def is_error_body(content: Any) -> bool:
    """Whether a body that came with HTTP 200 is one of the error shapes all the same."""
    return isinstance(content, dict) and (
        "error" in content
        or "error_code" in content
        or _get(content.get("status"), "error_code") is not None
    )


def refusal(status: int, body: bytes, *, host: str, coin: str | None, currency: str) -> SourceError:
    """The error for a final answer that is not 200. `coin` is None when the path names none."""
    what = said(body)
    quoted = f'"{what.message}"' if what.message else "nothing more"
    answered = f"{host} answers HTTP {status}" + (f" ({what.code})" if what.code else "")
    if what.code in _TOO_OLD:
        return HistoryTooOld(
            f"{answered}: {quoted}; ask for fewer days (keyless and demo plans reach 365 days "
            "back), or set source.plan=pro with a key of that plan"
        )
    if what.code in _WRONG_HOST:
        return WrongHostForKey(
            f"{answered}: {quoted}; set source.plan to the plan that the key in {KEY_VARIABLE} "
            "belongs to"
        )
    if status == 401 or what.code in _KEY or (status == 403 and _is_json(body)):
        return KeyProblem(f"{answered}: {quoted}; check {KEY_VARIABLE} and source.plan")
    if status == 403:
        return SourceError(
            f"{answered}, from its firewall: {quoted}; wait some minutes or use another network"
        )
    if status == 404 and coin is not None and _is_json(body):
        return UnknownCoin(
            f"{answered}: {quoted}; {coin!r} is not known there: set source.coin to an id as in "
            "the coin's address at coingecko.com"
        )
    if status == 404:
        return BadAnswer(f"{answered}: {quoted}; check source.base_url, it should end in /api/v3")
    if status == 400 and "vs_currency" in what.message:
        return UnknownCurrency(
            f"{answered}: {quoted}; {currency!r} is not quoted there: set source.vs_currency to a "
            "listed one, such as usd"
        )
    return BadAnswer(f"{answered}: {quoted}; the request was not understood")


def _is_json(body: bytes) -> bool:
    return body.lstrip()[:1] == b"{"


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def _first_int(values: Sequence[Any]) -> int | None:
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool)), None)


def _readable(text: str) -> str:
    """At most 200 characters in one line; of an HTML page its title, or its words."""
    if "<" in text:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _TEXT_LENGTH else words[:_TEXT_LENGTH] + "…"
