"""How much a plan may ask: calls in a minute, credits in a month, and what it hears above that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from bitstorm.collect.simulator.shapes import Answer, refusal
from bitstorm.instants import MINUTE_MS

Plan = Literal["keyless", "demo", "pro"]
Hint = Literal["retry-after", "x-ratelimit-reset", "none"]


@dataclass(frozen=True)
class Limits:
    """Calls in a minute and credits in a calendar month (UTC); None is without bound.

    `window` says whether the minute is the clock's or the last sixty seconds, `hint` in which
    header a refusal names the wait.
    """

    per_minute: int | None
    per_month: int | None
    window: Literal["fixed", "sliding"] = "fixed"
    hint: Hint = "retry-after"


# As published or measured; where sources differ, the smaller number. `pro` is the plan Analyst.
LIMITS: Mapping[Plan, Limits] = MappingProxyType(
    {
        "keyless": Limits(5, None),
        "demo": Limits(30, 10_000),
        "pro": Limits(500, 500_000),
    }
)
UNLIMITED = Limits(None, None)


class Meter:
    """Counts what was asked and spent. Threads may share it; times are Unix ms."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._asked: deque[int] = deque()
        self._month = ""
        self._spent = 0
        self._guard = threading.Lock()

    def refused(self, now_ms: int) -> Answer | None:
        """Count one request; the 429 when it is one too many. Refused ones count as well."""
        with self._guard:
            since = self._window_start(now_ms)
            while self._asked and self._asked[0] < since:
                self._asked.popleft()
            allowed = self.limits.per_minute
            if allowed is not None:
                if len(self._asked) >= allowed:
                    free = self._asked[-allowed] + MINUTE_MS
                    return self._too_many(now_ms, since + MINUTE_MS if self._fixed else free)
                self._asked.append(now_ms)
            credit = self.limits.per_month
            if credit is not None and self._spent_in(now_ms) >= credit:
                # What the API says when a month's credits are gone is not known: the same refusal,
                # without a wait that anybody would sit out.
                return refusal(429, now_ms)
            return None

    def spend(self, now_ms: int) -> None:
        """Take a credit: answers with status 200 cost one, all others none."""
        with self._guard:
            self._spent = self._spent_in(now_ms) + 1

    def spent(self, now_ms: int) -> int:
        """The credits of the month that are gone."""
        with self._guard:
            return self._spent_in(now_ms)

    @property
    def _fixed(self) -> bool:
        return self.limits.window == "fixed"

    def _window_start(self, now_ms: int) -> int:
        return now_ms // MINUTE_MS * MINUTE_MS if self._fixed else now_ms - MINUTE_MS + 1

    def _spent_in(self, now_ms: int) -> int:
        month = f"{datetime.fromtimestamp(now_ms // 1000, UTC):%Y-%m}"
        if month != self._month:
            self._month, self._spent = month, 0
        return self._spent

    def _too_many(self, now_ms: int, free_ms: int) -> Answer:
        headers = {"Cache-Control": "private, max-age=0, no-store, no-cache, must-revalidate"}
        if self.limits.hint == "retry-after":
            headers["Retry-After"] = str(max(1, -(-(free_ms - now_ms) // 1000)))
        elif self.limits.hint == "x-ratelimit-reset":
            free = datetime.fromtimestamp(-(-free_ms // 1000), UTC)
            headers["x-ratelimit-reset"] = f"{free:%Y-%m-%d %H:%M:%S} +0000"
        return replace(refusal(429, now_ms), headers=headers)
