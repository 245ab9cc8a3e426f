"""The API's error answers in their five shapes, as this project's errors.

    A  {"error": "coin not found"}
    B  {"status": {"error_code": 429, "error_message": "…"}}
    C  {"error": {"status": {"error_code": 10012, "error_message": "…"}}}
    D  {"error_code": 10010, "status": {"error_message": "…"}}
    E  no JSON: HTML, a bare word, nothing; and once {"status": 500, "error": "…"}

The HTTP status decides first; the body's code and text make it precise.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from bitstorm.core import errors

KEY_VARIABLE = "COINGECKO_API_KEY"

_TEXT_LENGTH = 200


@dataclass(frozen=True)
class ErrorDetails:
    """An error in the server's words; `code` is its own, None without one."""

    code: int | None
    message: str


def error_details(body: bytes) -> ErrorDetails:
    """Code and message of an error body of any shape; an empty body has an empty message."""
    text = body[:65536].decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return ErrorDetails(None, _readable(text))
    error = content.get("error")
    holders = [content.get("status"), error.get("status") if isinstance(error, dict) else None]
    codes = [*(_get(holder, "error_code") for holder in holders), content.get("error_code")]
    messages = [*(_get(holder, "error_message") for holder in holders), error]
    message = next((m for m in messages if isinstance(m, str) and m.strip()), text)
    # `type`: True is an int too.
    return ErrorDetails(next((c for c in codes if type(c) is int), None), _readable(message))


def is_error_body(content: Any) -> bool:
    """Whether the body of an answer with HTTP 200 has one of the error shapes."""
    return isinstance(content, dict) and (
        "error" in content
        or "error_code" in content
        or _get(content.get("status"), "error_code") is not None
    )


def refusal(
    status: int, body: bytes, *, host: str, coin: str | None, currency: str, keyless: bool
) -> errors.SourceError:
    """The error for a final answer that is not 200.

    `coin` is None when the path names none; `keyless` says that no key was sent.
    """
    what = error_details(body)
    quoted = f'"{what.message}"' if what.message else "nothing more"
    answered = f"{host} answers HTTP {status}" + (f" ({what.code})" if what.code else "")
    no_key = (
        f"no key was sent (source.plan=keyless): set source.plan, and {KEY_VARIABLE} to a key of "
        "that plan"
    )
    if what.code == 10012:
        return errors.HistoryTooOld(
            f"{answered}: {quoted}; ask for fewer days (keyless and demo plans reach 365 days "
            "back), or set source.plan=pro with a key of that plan"
        )
    if what.code in (10010, 10011):
        advice = f"set source.plan to the plan that the key in {KEY_VARIABLE} belongs to"
        return errors.WrongHostForKey(f"{answered}: {quoted}; {no_key if keyless else advice}")
    if status == 401 or what.code in (10002, 10005) or (status == 403 and _is_json(body)):
        advice = f"check {KEY_VARIABLE} and source.plan"
        return errors.KeyProblem(f"{answered}: {quoted}; {no_key if keyless else advice}")
    if status == 403:
        return errors.SourceError(
            f"{answered}, from its firewall: {quoted}; wait some minutes or use another network"
        )
    if status == 404 and coin is not None and _is_json(body):
        return errors.UnknownCoin(
            f"{answered}: {quoted}; {coin!r} is not known there: set source.coin to an id as in "
            "the coin's address at coingecko.com"
        )
    if status == 404:
        return errors.BadAnswer(
            f"{answered}: {quoted}; check source.base_url, it should end in /api/v3"
        )
    if status == 400 and "vs_currency" in what.message:
        return errors.UnknownCurrency(
            f"{answered}: {quoted}; {currency!r} is not quoted there: set source.vs_currency to a "
            "listed one, such as usd"
        )
    return errors.BadAnswer(f"{answered}: {quoted}; the request was not understood")


def _is_json(body: bytes) -> bool:
    return body.lstrip()[:1] == b"{"


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def _readable(text: str) -> str:
    """At most 200 characters in one line; an HTML page gives its title, else its words."""
    if "<" in text:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _TEXT_LENGTH else words[:_TEXT_LENGTH] + "…"
