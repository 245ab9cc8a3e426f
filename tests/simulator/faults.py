"""Faults by script: which requests are answered wrongly, and how.

A script is a list of rules:

    {"endpoint": "/simple/price",       # *, ? and [] as in file names; all when left out
     "requests": "2-3",                 # of that endpoint: 2, "2-3", "4-" or [1, 5]; all
     "refuse": 429,                     # the API's own words for 401, 403, 429, 10002 … 10012
     "headers": {"Retry-After": "7"}}

The first rule that fits strikes; every rule counts for itself what it could have struck. A rule
has one thing that it does or several that go together, see `Rule`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bitstorm.core.time import DAY_MS
from bitstorm.simulator.answers import REFUSALS, Answer, refusal

_VALUES: Mapping[str, str] = {
    "price": "prices",
    "market_cap": "market_caps",
    "volume": "total_volumes",
}


def html_page() -> Answer:
    """The page of the network in front of the API for an unwelcome caller."""
    title = "Access denied | api.coingecko.com used Cloudflare to restrict access"
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>1020</body></html>\n"
    return Answer(403, page.encode(), {"Content-Type": "text/html; charset=UTF-8"})


def _known(code: int) -> int:
    if code not in REFUSALS:
        raise ValueError(f"expected one of {', '.join(map(str, REFUSALS))}")
    return code


def _counted(text: int | str | list[int]) -> int | str | list[int]:
    _numbers(text)
    return text


class Rule(BaseModel):
    """One fault. Durations are in seconds, `points` are places in a chart's arrays.

    `price`, `market_cap` and `volume` are put in as they stand, so `"Infinity"` needs quotes of its
    own ('"Infinity"') to be a text in the answer, and `1e400` is a number that no double holds.
    `points` (all when left out) says which points of a chart these and `shift_ms`, `omit` and
    `repeat` are for; -1 is the last. `clock_skew_seconds` answers as of another time,
    `wall_days` refuses a look further back, whatever the plan.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = "*"
    requests: Annotated[int | str | list[int], AfterValidator(_counted)] = "1-"
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    refuse: Annotated[int, AfterValidator(_known)] | None = None
    html: bool = False
    body: str | None = None
    content_type: str | None = None
    headers: dict[str, str] = {}
    redirect: str | None = None
    delay_seconds: float = Field(0.0, ge=0)
    trickle_seconds: float = Field(0.0, ge=0)
    truncate: int | None = Field(None, ge=0)
    endless: bool = False
    drop: bool = False
    price: Any = None
    market_cap: Any = None
    volume: Any = None
    points: list[int] | None = None
    shift_ms: int = 0
    omit: bool = False
    repeat: bool = False
    reverse: bool = False
    clock_skew_seconds: float = 0.0
    wall_days: int | None = Field(None, ge=0)


@dataclass(frozen=True)
class Reply:
    """An answer on its way out.

    `sent` is how many bytes of the body leave before the connection ends, None for all;
    `trickle_s` is the pause after each of them. `truth` is the body before the rule changed it,
    empty where the rule made the answer up.
    """

    answer: Answer
    delay_s: float = 0.0
    trickle_s: float = 0.0
    sent: int | None = None
    endless: bool = False
    dropped: bool = False
    truth: bytes = b""

    @property
    def whole(self) -> bool:
        return self.sent is None and not (self.endless or self.dropped)


class Script:
    """The rules with their counts."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._asked = [0] * len(self.rules)

    def next(self, endpoint: str) -> Rule | None:
        """The rule for this request of the endpoint (without the API's root), None when none."""
        struck: Rule | None = None
        for place, rule in enumerate(self.rules):
            if fnmatchcase(endpoint, rule.endpoint):
                self._asked[place] += 1
                if struck is None and _numbers(rule.requests)(self._asked[place]):
                    struck = rule
        return struck


def replaced(rule: Rule, query: Mapping[str, str], now_ms: int) -> Answer | None:
    """The answer that takes the market's place, None where the rule only changes that one."""
    if rule.refuse is not None:
        made = refusal(rule.refuse, now_ms)
    elif rule.html:
        made = replace(html_page(), status=200)
    elif rule.body is not None:
        made = Answer(200, rule.body.encode())
    elif rule.redirect is not None:
        made = Answer(302, b"")
    elif rule.wall_days is not None and _reach(query, now_ms) < now_ms - rule.wall_days * DAY_MS:
        made = refusal(10012, now_ms)
    elif rule.status is not None and rule.status != 200:
        made = Answer(rule.status, b"")
    else:
        return None
    return made if rule.status is None else replace(made, status=rule.status)


def struck(rule: Rule, answer: Answer) -> Reply:
    """The answer as the rule sends it out."""
    body = answer.body
    if answer.status == 200:
        body = _changed(rule, body)
    headers = {**answer.headers, **rule.headers}
    if rule.content_type is not None:
        headers["Content-Type"] = rule.content_type
    if rule.redirect is not None:
        headers["Location"] = rule.redirect
    return Reply(
        replace(answer, body=body, headers=headers),
        delay_s=rule.delay_seconds,
        trickle_s=rule.trickle_seconds,
        sent=None if rule.truncate is None else min(rule.truncate, max(len(body) - 1, 0)),
        endless=rule.endless,
        dropped=rule.drop,
    )


def _numbers(text: int | str | list[int]) -> Callable[[int], bool]:
    """Whether the n-th request is meant. Raises ValueError."""
    if isinstance(text, list):
        wanted = frozenset(text)
        return lambda number: number in wanted
    first, dash, last = str(text).partition("-")
    if not first.isdecimal() or not (last.isdecimal() or not last):
        raise ValueError('expected a number from 1, "2-5", "3-" or a list of numbers')
    low = int(first)
    high = low if not dash else int(last) if last else None
    return lambda number: low <= number and (high is None or number <= high)


def _reach(query: Mapping[str, str], now_ms: int) -> int:
    """The oldest moment (Unix ms) that a chart's request asks for."""
    if query.get("from", "").isdecimal():
        return int(query["from"]) * 1000
    days = query.get("days", "0")
    return now_ms - int(days) * DAY_MS if days.isdecimal() else 0


def _changed(rule: Rule, body: bytes) -> bytes:
    literals = {key: _text(getattr(rule, key)) for key in _VALUES if key in rule.model_fields_set}
    if not (literals or rule.shift_ms or rule.omit or rule.repeat or rule.reverse):
        return body
    content = json.loads(body)
    if "prices" in content:
        for key, name in _VALUES.items():
            content[name] = _chart(rule, content[name], key if key in literals else None)
    else:
        for fields in content.values():
            _live(rule, fields, literals)
    text = json.dumps(content, separators=(",", ":"))
    for key, literal in literals.items():
        text = text.replace(f'"<{key}>"', literal)
    return text.encode()


def _chart(rule: Rule, array: Sequence[list[Any]], key: str | None) -> list[list[Any]]:
    count = len(array)
    meant = set(range(count)) if rule.points is None else {p % count for p in rule.points if count}
    made: list[list[Any]] = []
    for place, (stamp, value) in enumerate(array):
        if place not in meant:
            made.append([stamp, value])
            continue
        point = [stamp + rule.shift_ms, value if key is None else f"<{key}>"]
        made += [] if rule.omit else [point, list(point)] if rule.repeat else [point]
    return made[::-1] if rule.reverse else made


def _live(rule: Rule, fields: dict[str, Any], literals: Mapping[str, str]) -> None:
    for name in list(fields):
        kind = name.partition("_")[2]
        key = {"": "price", "market_cap": "market_cap", "24h_vol": "volume"}.get(kind)
        if key in literals:
            fields[name] = f"<{key}>"
    if "last_updated_at" in fields:
        fields["last_updated_at"] += rule.shift_ms // 1000


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
