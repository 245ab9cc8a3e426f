"""`collect` and `backfill`: prices from the source → batches in the landing folder."""

from __future__ import annotations

import os

from bitstorm.collect import source
from bitstorm.collect.backfill import Backfilled, Progress
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.collect.door import FOLDER, Door, newest_landed
from bitstorm.collect.live import Collected, collect_once
from bitstorm.instants import iso
from bitstorm.pipelines.context import Context


def collect(context: Context) -> Collected:
    """One live observation → one batch, or none when the source still states the last one."""
    settings = context.settings.source
    with source.opened(context.settings, os.environ, door=_door(context)) as client:
        context.workspace.check(context.origin())
        return collect_once(
            client,
            context.workspace.landing,
            coin=settings.coin,
            vs_currency=settings.vs_currency,
        )


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

    with source.opened(settings, os.environ, door=_door(context)) as client:
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
        if client.refused:
            folder = context.workspace.rejects / FOLDER
            context.console.say(
                f"{client.refused:,} values of the source were left out; what it said, and why "
                f"not, is in {folder}"
            )
        return fetched


def _door(context: Context) -> Door:
    """What answers have to pass, with the workspace's `rejects/` for those that do not."""
    settings, workspace = context.settings, context.workspace
    return Door(
        rejects=workspace.rejects,
        max_jump=settings.source.max_jump,
        future_seconds=settings.ingest.future_seconds,
        previous=lambda: newest_landed(workspace.landing),
    )
