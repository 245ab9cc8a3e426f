"""A simulator that keeps what it was asked and what it served, to be held against what landed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bitstorm.core.time import DAY_MS, HOUR_MS
from bitstorm.simulator.answers import Request
from simulator.faults import Reply
from simulator.faulty import FaultySimulator

Point = tuple[int, float, float | None, float | None]


@dataclass(frozen=True)
class SeenRequest:
    """One request: `headers` with lower-case names, `query` as text."""

    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    status: int


@dataclass(frozen=True)
class Served:
    """One answer, at `at_ms` (Unix ms) by the server's clock."""

    at_ms: int
    ask: Request
    reply: Reply

    def observations(self) -> list[Point]:
        """The points that a careful reader may take from this answer, sorted, each stamp once.

        (Unix ms, price, market cap, 24 h volume), in the quote currency. Nothing that a fault has
        touched is among them, nothing from the future, nor a chart's point for "now".
        """
        reply, touches_now = self.reply, self._touches_now()
        if reply.answer.status != 200 or not reply.whole:
            return []
        points = _points(reply.answer.body, touches_now)
        if reply.truth is not reply.answer.body:
            true = _points(reply.truth, touches_now)
            points = {
                stamp: point
                for stamp, point in points.items()
                if stamp in true and true[stamp][0] == point[0]
            }
        return [(t, *point) for t, point in sorted(points.items()) if t <= self.at_ms]

    def _touches_now(self) -> bool:
        """Whether a chart's last point may be the one for "now": a range that ended long ago has
        none, and one may be half an hour old.
        """
        asked = self.ask.query.get("to", "")
        return not asked.isdecimal() or int(asked) * 1000 >= self.at_ms - HOUR_MS


class Ledger:
    """The answers, oldest first. Threads may share it."""

    def __init__(self) -> None:
        self._served: list[Served] = []
        self._guard = threading.Lock()

    def note(self, served: Served) -> None:
        with self._guard:
            self._served.append(served)

    def __iter__(self) -> Iterator[Served]:
        with self._guard:
            return iter(list(self._served))

    def observations(
        self, *, endpoint: str | None = None, first_ms: int = 0, last_ms: int = 2**63 - 1
    ) -> list[Point]:
        """All points of all answers in [first_ms, last_ms], sorted, each stamp once.

        `endpoint` is the ending of those that count, such as `/range`; None: all.
        """
        found: dict[int, Point] = {}
        for served in self:
            if endpoint is None or served.ask.path.endswith(endpoint):
                for point in served.observations():
                    if first_ms <= point[0] <= last_ms:
                        found.setdefault(point[0], point)
        return [found[stamp] for stamp in sorted(found)]


class Simulator(FaultySimulator):
    """`requests` holds what came in, `ledger` what went out."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.requests: list[SeenRequest] = []
        self.ledger = Ledger()
        super().__init__(*arguments, **options)

    def reply(self, ask: Request) -> Reply:
        reply = super().reply(ask)
        query = urlencode(ask.query, safe=",")
        self.requests.append(SeenRequest(ask.path, query, ask.headers, reply.answer.status))
        self.ledger.note(Served(self.now_ms(), ask, reply))
        return reply


_Values = tuple[float, float | None, float | None]


def _points(body: bytes, touches_now: bool) -> dict[int, _Values]:
    """Price, cap and volume by stamp, of a live price or a chart; nothing of any other body."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("prices"), list):
        return _chart(content, touches_now)
    found: dict[int, _Values] = {}
    for fields in content.values():
        if not isinstance(fields, dict) or not isinstance(fields.get("last_updated_at"), int):
            continue
        currency = next((name for name in fields if "_" not in name), "")
        if _is_price(fields.get(currency)):
            found[fields["last_updated_at"] * 1000] = (
                float(fields[currency]),
                fields.get(f"{currency}_market_cap"),
                fields.get(f"{currency}_24h_vol"),
            )
    return found


def _chart(content: dict[str, Any], touches_now: bool) -> dict[int, _Values]:
    prices = content["prices"]
    if touches_now and prices and prices[-1][0] % 1000 == 0 and prices[-1][0] % DAY_MS:
        prices = prices[:-1]
    caps, volumes = dict(content.get("market_caps", [])), dict(content.get("total_volumes", []))
    found: dict[int, _Values] = {}
    for stamp, price in prices:
        if _is_price(price):
            found.setdefault(int(stamp), (float(price), caps.get(stamp), volumes.get(stamp)))
    return found


def _is_price(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < float("inf")
