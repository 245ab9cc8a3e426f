"""How much a plan may ask: calls in a minute, credits in a month, and what it hears above that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from bitstorm.core.time import MINUTE_MS
from bitstorm.simulator.answers import Answer, Plan, refusal


@dataclass(frozen=True)
class Limits:
    """Calls in a minute of the clock and credits in a month (UTC); None is without bound."""

    per_minute: int | None
    per_month: int | None


# As published or measured; where sources differ, the smaller number. `pro` is the plan Analyst.
LIMITS: Mapping[Plan, Limits] = MappingProxyType(
    {"keyless": Limits(5, None), "demo": Limits(30, 10_000), "pro": Limits(500, 500_000)}
)
UNLIMITED = Limits(None, None)


class RateLimit:
    """Counts what was asked and spent; times are Unix ms."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._minute = self._asked = 0
        self._month = ""
        self._spent = 0

    def refused(self, now_ms: int) -> Answer | None:
        """Count one request; the 429 when it is one too many. Other refusals count as well."""
        if (minute := now_ms // MINUTE_MS) != self._minute:
            self._minute, self._asked = minute, 0
        allowed, credit = self.limits.per_minute, self.limits.per_month
        if allowed is not None and self._asked >= allowed:
            wait = max(1, -(-((minute + 1) * MINUTE_MS - now_ms) // 1000))
            cache = "private, max-age=0, no-store, no-cache, must-revalidate"
            headers = {"Cache-Control": cache, "Retry-After": str(wait)}
            return replace(refusal(429, now_ms), headers=headers)
        self._asked += 1
        # What the API says when a month's credits are gone is not known: the same refusal, without
        # a wait that anybody would sit out.
        gone = credit is not None and self.spent(now_ms) >= credit
        return refusal(429, now_ms) if gone else None

    def spend(self, now_ms: int) -> None:
        """Take a credit: answers with status 200 cost one, all others none."""
        self._spent = self.spent(now_ms) + 1

    def spent(self, now_ms: int) -> int:
        """The credits of the month that are gone."""
        month = f"{datetime.fromtimestamp(now_ms // 1000, UTC):%Y-%m}"
        if month != self._month:
            self._month, self._spent = month, 0
        return self._spent

    def shown(self, now_ms: int) -> dict[str, Any]:
        """What `/key` shows of them."""
        bounds = {"per_minute": self.limits.per_minute, "per_month": self.limits.per_month}
        return {k: v for k, v in bounds.items() if v} | {"spent": self.spent(now_ms)}
