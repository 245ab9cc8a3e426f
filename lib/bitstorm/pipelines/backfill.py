"""`backfill`: history from the source → batches in the landing folder."""

from __future__ import annotations

from collections.abc import Callable

from bitstorm.collect.backfill import Backfilled, BackfillRequest, Planned, Progress, plan_backfill
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, iso, now_ms
from bitstorm.pipelines.collect import open_source, say_refused
from bitstorm.pipelines.gaps import find_gaps, known_hours


def backfill(
    context: Context,
    *,
    days: int | None = None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    gaps_only: bool = False,
    again: bool = False,
    clock: Callable[[], int] = now_ms,
) -> Backfilled:
    """Fetch the missing history of `days`, or from `from_ms`, up to `until_ms` (ms UTC; None is
    now), in slices.

    With `gaps_only` fetch only the missing slots that `gaps` lists. With `again` fetch also what
    earlier answers had, or lacked. Raises SourceError, and UsageError for `days` with `from_ms`.
    """
    with open_source(context, clock=clock) as client:
        wanted = _wanted(context, days, from_ms, until_ms, gaps_only, again, clock)
        with context.console.bar() as bar:

            def show(at: Progress) -> None:
                context.console.log(f"    {progress_text(at)}")
                bar(at.done / at.total, progress_text(at), False)

            landing = context.workspace.landing
            found = fetch_history(client, landing, wanted, clock=clock, progress=show)
        say_refused(context, client)
        for warning in found.warnings:
            context.console.warn(warning)
        return found


def plan(
    context: Context,
    *,
    days: int | None = None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    gaps_only: bool = False,
    again: bool = False,
    clock: Callable[[], int] = now_ms,
) -> Planned:
    """The requests and the cost of such a `backfill`; fetches no price."""
    with open_source(context, clock=clock) as client:
        wanted = _wanted(context, days, from_ms, until_ms, gaps_only, again, clock)
        return plan_backfill(client, context.workspace.landing, wanted, clock=clock)


def progress_text(at: Progress) -> str:
    """The text next to the bar, and the line in the log file."""
    return (
        f"slice {at.done}/{at.total}  {at.points:,} points  {at.lacking:,} hours without one  "
        f"{at.calls} calls  back to {iso(at.span.start)}"
    )


def _wanted(
    context: Context,
    days: int | None,
    from_ms: int | None,
    until_ms: int | None,
    gaps_only: bool,
    again: bool,
    clock: Callable[[], int],
) -> BackfillRequest:
    settings, origin = context.settings, context.origin()
    context.workspace.check(origin)
    if days is not None and from_ms is not None:
        raise UsageError("found both days and a start of the history; expected one of them")
    within = None
    if gaps_only:
        within = find_gaps(context, clock=clock).wanted_spans(again=again)
        if days is None:
            # Far enough back for all of them.
            oldest = min([span.start for span in within], default=clock())
            days = max(1, -(-(clock() - oldest) // DAY_MS))
    return BackfillRequest(
        settings.source.coin,
        settings.source.vs_currency,
        days=settings.backfill.days if days is None else days,
        slice_days=settings.backfill.slice_days,
        from_ms=from_ms,
        until_ms=until_ms,
        within=within,
        known=known_hours(context, origin),
        again=again,
        confirm_hours=settings.backfill.confirm_hours,
    )
