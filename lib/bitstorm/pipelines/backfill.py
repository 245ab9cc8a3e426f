"""`backfill`: history from the source → batches in the landing folder."""

from __future__ import annotations

from collections.abc import Callable

from bitstorm.collect.backfill import Backfilled, BackfillRequest, Planned, Progress, plan_backfill
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.context import Context
from bitstorm.core.time import DAY_MS, iso, now_ms
from bitstorm.pipelines.collect import opened, tell_refused

_BAR = 20


def backfill(
    context: Context,
    *,
    days: int | None = None,
    until_ms: int | None = None,
    gaps_only: bool = False,
    clock: Callable[[], int] = now_ms,
) -> Backfilled:
    """History of `days` up to `until_ms` (ms UTC; now), in slices, only what is missing.

    With `gaps_only` just the slots that `gaps` lists as not fetched yet.
    """

    def show(progress: Progress) -> None:
        context.console.progress(progress_line(progress))

    with opened(context, clock=clock) as client:
        wanted = _wanted(context, days, until_ms, gaps_only, clock)
        found = fetch_history(client, context.workspace.landing, wanted, clock=clock, progress=show)
        tell_refused(context, client)
        return found


def plan(
    context: Context,
    *,
    days: int | None = None,
    until_ms: int | None = None,
    gaps_only: bool = False,
    clock: Callable[[], int] = now_ms,
) -> Planned:
    """What `backfill` would ask for, and what that would cost; no price is fetched."""
    with opened(context, clock=clock) as client:
        wanted = _wanted(context, days, until_ms, gaps_only, clock)
        return plan_backfill(client, context.workspace.landing, wanted, clock=clock)


def progress_line(progress: Progress) -> str:
    """A bar and what was had so far."""
    full = _BAR * progress.done // progress.total
    return (
        f"    [{'#' * full}{'.' * (_BAR - full)}] slice {progress.done}/{progress.total}  "
        f"{progress.points:,} points  {progress.empty:,} hours without one  "
        f"{progress.calls} calls  {progress.credits} credits  back to {iso(progress.span.start)}"
    )


def _wanted(
    context: Context,
    days: int | None,
    until_ms: int | None,
    gaps_only: bool,
    clock: Callable[[], int],
) -> BackfillRequest:
    # The store loads pyarrow, which one live observation can do without.
    from bitstorm.pipelines.gaps import find_gaps, known_hours

    settings, origin = context.settings, context.origin()
    context.workspace.check(origin)
    within = None
    if gaps_only:
        within = find_gaps(context, clock=clock).unasked_spans()
        if days is None:
            # All of them, as far back as they go.
            oldest = min([span.start for span in within], default=clock())
            days = max(1, -(-(clock() - oldest) // DAY_MS))
    return BackfillRequest(
        settings.source.coin,
        settings.source.vs_currency,
        days=settings.backfill.days if days is None else days,
        slice_days=settings.backfill.slice_days,
        until_ms=until_ms,
        within=within,
        known=known_hours(context, origin),
    )
