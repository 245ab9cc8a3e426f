"""The cache in front of the API: the same question within the window gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from bitstorm.simulator.answers import Plan
from bitstorm.simulator.error_bodies import Answer

_MOST = 256


class ResponseCache:
    """Answers by question; times are Unix ms."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Answer, int, int]] = {}

    def find(self, question: str, now_ms: int) -> tuple[Answer, int] | None:
        """The kept answer and the moment that it was made; None where there is none."""
        kept = self._kept.get(question)
        return kept[:2] if kept is not None and kept[1] <= now_ms < kept[2] else None

    def keep(self, question: str, answer: Answer, *, now_ms: int, window_ms: int) -> None:
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[question] = (answer, now_ms, now_ms + window_ms)


def question(path: str, query: Mapping[str, str]) -> str:
    """What makes two requests the same: path and parameters in any order, whoever asks."""
    asked = sorted((name, value) for name, value in query.items() if not name.endswith("api_key"))
    return f"{path}?{asked}"


def window_ms(endpoint: str, query: Mapping[str, str], plan: Plan) -> int:
    """How long an answer is repeated, as the vendor's pages say; `endpoint` is without the root.

    Where they say nothing (`/coins/markets`), or two things (`market_chart`), the shorter one.
    """
    if endpoint == "/simple/price":
        return 20_000 if plan == "pro" else MINUTE_MS
    if endpoint.endswith("/range"):
        first, last = query.get("from", ""), query.get("to", "")
        if not (first.isdecimal() and last.isdecimal()):
            return 0
        length = (int(last) - int(first)) * 1000
        if length <= DAY_MS:
            return 30_000
        return 30 * MINUTE_MS if length <= 90 * DAY_MS else 12 * HOUR_MS
    if endpoint.endswith("/market_chart"):
        return 30_000
    if endpoint.endswith("/ohlc"):
        return 15 * MINUTE_MS
    return 45_000 if endpoint == "/coins/markets" else 0
