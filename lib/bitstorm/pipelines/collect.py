"""`collect` and `backfill`: prices from the source → batches in the landing folder."""

from __future__ import annotations

import os

from bitstorm.collect import source
from bitstorm.collect.backfill import Backfilled, Progress
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.collect.live import Collected, collect_once
from bitstorm.instants import iso
from bitstorm.pipelines.context import Context
from bitstorm.pipelines.door import door_of, tell_refused


def collect(context: Context) -> Collected:
    """One live observation → one batch, or none when the source still states the last one."""
    settings = context.settings.source
    with source.opened(context.settings, os.environ, door=door_of(context)) as client:
        context.workspace.check(context.origin())
        collected = collect_once(
            client,
            context.workspace.landing,
            coin=settings.coin,
            vs_currency=settings.vs_currency,
        )
        tell_refused(context, client)
        return collected


def backfill(
    context: Context, *, days: int | None = None, until_ms: int | None = None
) -> Backfilled:
    """History of `days` up to `until_ms` (ms UTC; now), in slices, only what is missing."""
    settings = context.settings

    def show(progress: Progress) -> None:
        context.console.progress(
            f"    slice {progress.done}/{progress.total}  {progress.points:,} points  "
            f"{iso(progress.span.start)} …"
        )

    with source.opened(settings, os.environ, door=door_of(context)) as client:
        context.workspace.check(context.origin())
        fetched = fetch_history(
            client,
            context.workspace.landing,
            coin=settings.source.coin,
            vs_currency=settings.source.vs_currency,
            days=settings.backfill.days if days is None else days,
            slice_days=settings.backfill.slice_days,
            until_ms=until_ms,
            progress=show,
        )
        tell_refused(context, client)
        return fetched
