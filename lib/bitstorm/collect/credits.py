"""The month's credits: one a call, counted by calendar month in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

WARN_PERCENT = 80
_MONTHS_KEPT = 12


def month_of(now_ms: int) -> str:
    """`2026-05` of a moment in Unix ms."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m")


def next_month_ms(now_ms: int) -> int:
    """The first moment of the following month, Unix ms UTC."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    years, month = divmod(moment.month, 12)
    return round(datetime(moment.year + years, month + 1, 1, tzinfo=UTC).timestamp() * 1000)


def changed(spent: Mapping[str, int], month: str, by: int) -> dict[str, int]:
    """The months with `by` added to one of them, never below zero; the oldest ones drop out."""
    months = {**spent, month: max(0, spent.get(month, 0) + by)}
    return {name: months[name] for name in sorted(months)[-_MONTHS_KEPT:]}


def worth_a_warning(spent: int, budget: int) -> bool:
    """Whether this call reached a further whole percent of the budget, from 80 on."""
    percent = 100 * spent // budget
    return percent >= WARN_PERCENT and percent > 100 * (spent - 1) // budget
