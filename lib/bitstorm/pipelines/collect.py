"""`collect`: the newest price from the source → a batch in the landing folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from bitstorm.collect import live
from bitstorm.collect.coingecko.answer_checks import FOLDER, AnswerChecks, newest_landed
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.live import Collected, collect_once
from bitstorm.context import Context
from bitstorm.core.errors import WorkspaceError
from bitstorm.core.time import now_ms


def collect(context: Context, *, asking: AbstractContextManager[object] | None = None) -> Collected:
    """One live observation → one batch, or none when the source still states the last one.

    The request runs inside `asking`. Raises SourceError, and WorkspaceError when the batch cannot
    be written.
    """
    settings = context.settings.source
    with opened(context) as client:
        context.workspace.check(context.origin())
        try:
            collected = collect_once(
                client,
                context.workspace.landing,
                coin=settings.coin,
                vs_currency=settings.vs_currency,
                during_request=asking,
            )
        except OSError as error:
            raise WorkspaceError(
                f"the observation cannot be written into {context.workspace.landing} "
                f"({error.strerror}); make room or set the folder's permissions right, then "
                "collect again: a batch is there whole or not at all"
            ) from error
        tell_refused(context, client)
        return collected


def opened(
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
    return live.open_source(
        settings,
        os.environ,
        calls=workspace.calls,
        report=context.console.say,
        warn=context.console.warn,
        checks=checks,
        clock=clock,
    )


def tell_refused(context: Context, client: CoinGecko) -> None:
    """Say how many values were left out, if any, and where the answers are that had them."""
    if client.refused:
        folder = context.workspace.rejects / FOLDER
        context.console.say(
            f"{client.refused:,} values of the source were left out; what it said, and why not, "
            f"is in {folder}"
        )
