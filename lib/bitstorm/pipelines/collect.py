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
    """One live observation → one batch, or none where the source still has the last one.

    The request runs inside `asking`. Raises SourceError, and WorkspaceError where the batch cannot
    be written.
    """
    settings, landing = context.settings.source, context.workspace.landing
    coin, currency = settings.coin, settings.vs_currency
    with open_source(context) as client:
        context.workspace.check(context.origin())
        try:
            collected = collect_once(
                client, landing, coin=coin, vs_currency=currency, during_request=asking
            )
        except OSError as error:
            raise WorkspaceError(
                f"the observation cannot be written into {landing} ({error.strerror}): free some "
                "space or correct the folder's permissions, then collect again"
            ) from error
        say_refused(context, client)
        return collected


def open_source(
    context: Context, *, clock: Callable[[], int] = now_ms
) -> AbstractContextManager[CoinGecko]:
    """Open the settings' source, within the limits that the workspace counts calls for. Refused
    answers are kept in the workspace's `rejects/`."""
    settings, workspace = context.settings, context.workspace
    checks = AnswerChecks(
        rejects=workspace.rejects,
        max_jump=settings.source.max_jump,
        future_seconds=settings.ingest.future_seconds,
        previous=lambda: newest_landed(workspace.landing, coin=settings.source.coin),
    )
    return live.open_source(
        settings,
        os.environ,
        calls=workspace.calls,
        report=context.console.say,
        warn=context.console.warn_once,
        checks=checks,
        clock=clock,
    )


def say_refused(context: Context, client: CoinGecko) -> None:
    """Say how many values were refused, if any, and where their answers are."""
    if client.refused:
        folder = context.workspace.rejects / FOLDER
        context.console.say(
            f"{client.refused:,} values of the source were refused; the answers and the reasons "
            f"are in {folder}"
        )
