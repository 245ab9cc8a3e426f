"""`collect` and `backfill`: prices from the source → batches in the landing folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from bitstorm.collect import source
from bitstorm.collect.backfill import Backfilled, Planned, Progress, Wanted, planned
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.collect.coingecko.answer_checks import FOLDER, AnswerChecks, newest_landed
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.live import Collected, collect_once
from bitstorm.context import Context
from bitstorm.core.errors import WorkspaceError
from bitstorm.core.time import DAY_MS, iso, now_ms

_BAR = 20


def collect(context: Context, *, asking: AbstractContextManager[object] | None = None) -> Collected:
    """One live observation → one batch, or none when the source still states the last one.

    The request runs inside `asking`. Raises SourceError, and WorkspaceError when the batch cannot
    be written.
    """
    settings = context.settings.source
    with _opened(context) as client:
        context.workspace.check(context.origin())
        try:
            collected = collect_once(
                client,
                context.workspace.landing,
                coin=settings.coin,
                vs_currency=settings.vs_currency,
                asking=asking,
            )
        except OSError as error:
            raise WorkspaceError(
                f"the observation cannot be written into {context.workspace.landing} "
                f"({error.strerror}); make room or set the folder's permissions right, then "
                "collect again: a batch is there whole or not at all"
            ) from error
        _tell_refused(context, client)
        return collected


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

    with _opened(context, clock=clock) as client:
        wanted = _wanted(context, days, until_ms, gaps_only, clock)
        found = fetch_history(client, context.workspace.landing, wanted, clock=clock, progress=show)
        _tell_refused(context, client)
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
    with _opened(context, clock=clock) as client:
        wanted = _wanted(context, days, until_ms, gaps_only, clock)
        return planned(client, context.workspace.landing, wanted, clock=clock)


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
) -> Wanted:
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
    return Wanted(
        settings.source.coin,
        settings.source.vs_currency,
        days=settings.backfill.days if days is None else days,
        slice_days=settings.backfill.slice_days,
        until_ms=until_ms,
        within=within,
        known=known_hours(context, origin),
    )


def _opened(
    context: Context, *, clock: Callable[[], int] = now_ms
) -> AbstractContextManager[CoinGecko]:
    """The settings' source, held to its limits by the workspace's count of calls; what it refuses
    is kept in the workspace's `rejects/`."""
    settings, workspace = context.settings, context.workspace
    checks = AnswerChecks(
        rejects=workspace.rejects,
        max_jump=settings.source.max_jump,
        future_seconds=settings.ingest.future_seconds,
        previous=lambda: newest_landed(workspace.landing),
    )
    return source.opened(
        settings,
        os.environ,
        calls=workspace.calls,
        tell=context.console.say,
        warn=context.console.warn,
        checks=checks,
        clock=clock,
    )


def _tell_refused(context: Context, client: CoinGecko) -> None:
    """Say how many values were left out, if any, and where the answers are that had them."""
    if client.refused:
        folder = context.workspace.rejects / FOLDER
        context.console.say(
            f"{client.refused:,} values of the source were left out; what it said, and why not, "
            f"is in {folder}"
        )
