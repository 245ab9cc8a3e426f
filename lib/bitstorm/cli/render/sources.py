"""Results of backfill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.cli.render.table import count_text, table
from bitstorm.core.time import iso

if TYPE_CHECKING:
    from bitstorm.collect.backfill import Backfilled
    from bitstorm.pipelines.collect import Planned


def planned_lines(plan: Planned) -> list[str]:
    """What a backfill would ask for and cost."""
    if not plan.slices:
        return ["nothing is left to ask for: no call would be made"]
    rows = [("from", "to", "points expected")]
    rows += [(iso(s.from_ms), iso(s.to_ms), f"{s.points:,}") for s in plan.slices]
    return [
        *table(rows, heading=True),
        f"{count_text(len(plan.slices), 'slice')}: {_cost(plan.calls, plan.credits)}, about "
        f"{plan.points:,} points; nothing was fetched",
    ]


def _cost(calls: int, credits: int) -> str:
    return f"{count_text(calls, 'call')}, {count_text(credits, 'credit')}"


def backfilled_lines(result: Backfilled) -> list[str]:
    """What a backfill brought and cost."""
    if result.idle:
        return ["nothing is left to ask for: no call was made"]
    lines = [
        f"{count_text(result.points, 'point')} in {count_text(result.slices, 'slice')}, "
        f"{count_text(result.empty, 'hour')} without one; "
        f"{_cost(result.calls, result.credits)}: {iso(result.wanted.start)} to "
        f"{iso(result.wanted.end)}"
    ]
    if result.clamped:
        lines.append("the plan of the key reaches no further back than that")
    return lines
