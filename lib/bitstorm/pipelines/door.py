"""The door of a workspace: its settings, where refused answers go, and the price before."""

from __future__ import annotations

from bitstorm.collect.coingecko import CoinGecko
from bitstorm.collect.door import FOLDER, Door, newest_landed
from bitstorm.pipelines.context import Context


def door_of(context: Context) -> Door:
    """What answers have to pass, with the workspace's `rejects/` for those that do not."""
    settings, workspace = context.settings, context.workspace
    return Door(
        rejects=workspace.rejects,
        max_jump=settings.source.max_jump,
        future_seconds=settings.ingest.future_seconds,
        previous=lambda: newest_landed(workspace.landing),
    )


def tell_refused(context: Context, client: CoinGecko) -> None:
    """Say how many values were left out, if any, and where the answers are that had them."""
    if client.refused:
        folder = context.workspace.rejects / FOLDER
        context.console.say(
            f"{client.refused:,} values of the source were left out; what it said, and why not, "
            f"is in {folder}"
        )
