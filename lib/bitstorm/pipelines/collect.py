"""`collect` and `backfill`: prices from the source → batches in the landing folder."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from bitstorm.collect import source
from bitstorm.collect.backfill import Backfilled, Progress
from bitstorm.collect.backfill import backfill as fetch_history
from bitstorm.collect.coingecko import CoinGecko
from bitstorm.collect.live import Collected, collect_once
from bitstorm.errors import WorkspaceError
from bitstorm.instants import iso
from bitstorm.pipelines.context import Context


def collect(context: Context, *, asking: AbstractContextManager[object] | None = None) -> Collected:
    """One live observation → one batch, or none when the source still states the last one.

    The request runs inside `asking`. Raises SourceError, and WorkspaceError when the batch cannot
    be written.
    """
    settings = context.settings.source
    with _opened(context) as client:
        context.workspace.check(context.origin())
        try:
            return collect_once(
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

    with _opened(context) as client:
        context.workspace.check(context.origin())
        return fetch_history(
            client,
            context.workspace.landing,
            coin=settings.source.coin,
            vs_currency=settings.source.vs_currency,
            days=settings.backfill.days if days is None else days,
            slice_days=settings.backfill.slice_days,
            until_ms=until_ms,
            progress=show,
        )


def _opened(context: Context) -> AbstractContextManager[CoinGecko]:
    """The settings' source, held to its limits by the workspace's count of calls."""
    return source.opened(
        context.settings,
        os.environ,
        calls=context.workspace.calls,
        tell=context.console.say,
        warn=context.console.warn,
    )
