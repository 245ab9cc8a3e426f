"""Commands on the data sets: ingest, their state, their history, and what mends them."""

from __future__ import annotations

from typing import Any

import click

from bitstorm.cli.common import Invocation, common_options, parsed, snapshot_option


@click.command()
@click.option(
    "--replay-rejects", is_flag=True, help="Check the refused rows again, with the settings of now."
)
@common_options
def ingest(invocation: Invocation, replay_rejects: bool) -> Any:
    """Add the new batches to the prices."""
    from bitstorm.cli.render.data_sets import ingested_lines
    from bitstorm.pipelines.ingest import ingest as take
    from bitstorm.pipelines.replay import replay

    context = invocation.context()
    result = replay(context) if replay_rejects else take(context)
    return invocation.show(
        result, lambda: ingested_lines(result, rejects=context.workspace.rejects)
    )


@click.command()
@snapshot_option
@common_options
def status(invocation: Invocation) -> Any:
    """Show rows, span, gaps and age of the data."""
    from bitstorm.cli.render.data_sets import status_lines
    from bitstorm.pipelines.status import status as pipeline

    context = invocation.context()
    result = pipeline(context)
    return invocation.show(result, lambda: status_lines(result, context.workspace.root))


@click.command()
@snapshot_option
@common_options
def gaps(invocation: Invocation) -> Any:
    """List the gaps: times that should have a price."""
    from bitstorm.cli.render.data_sets import gaps_lines
    from bitstorm.pipelines.gaps import find_gaps

    found = find_gaps(invocation.context())
    return invocation.show(found, lambda: gaps_lines(found))


@click.command()
@click.option(
    "--row", metavar="TIMESTAMP", help="Show the batch and line of the price at this time."
)
@snapshot_option
@common_options
def history(invocation: Invocation, row: str | None) -> Any:
    """List the snapshots, newest first."""
    from bitstorm.cli.render.data_sets import history_lines, trace_lines
    from bitstorm.core.time import parse_instant
    from bitstorm.pipelines import history as pipeline

    if row is None:
        commits = pipeline.history(invocation.context())
        return invocation.show(commits, lambda: history_lines(commits))
    timestamp_ms = parsed("--row", parse_instant, row)
    found = pipeline.trace(invocation.context(), timestamp_ms)
    return invocation.show(found, lambda: trace_lines(found))


@click.command()
@common_options
def verify(invocation: Invocation) -> Any:
    """Check every hash and count again."""
    from bitstorm.pipelines import history as pipeline

    found = pipeline.verify(invocation.context())
    return invocation.show(
        found,
        lambda: [
            f"{name}: {v.snapshots} snapshots, {v.files} files, {v.size:,} bytes, all as written"
            for name, v in found.items()
        ],
    )


@click.command()
@click.argument("batch")
@click.option("--reason", required=True, help="Reason; the history keeps it.")
@common_options
def retract(invocation: Invocation, batch: str, reason: str) -> Any:
    """Remove a wrong batch, in a new snapshot."""
    from bitstorm.cli.render.data_sets import retracted_lines
    from bitstorm.pipelines.retract import retract as pipeline

    result = pipeline(invocation.context(), batch, reason=reason)
    return invocation.show(result, lambda: retracted_lines(result))


@click.command()
@click.argument("snapshot_id", metavar="ID")
@click.option("--reason", default="", help="Reason; the history keeps it.")
@common_options
def rollback(invocation: Invocation, snapshot_id: str, reason: str) -> Any:
    """Make an older snapshot the current one again."""
    from bitstorm.pipelines import history as pipeline

    result = pipeline.rollback(invocation.context(), snapshot_id, reason=reason)
    return invocation.show(
        result,
        lambda: [
            f"{result.data_set}: {result.snapshot} is current again, {result.rows:,} rows; "
            "batches ingested since then count as new"
        ],
    )


@click.command()
@click.option("--keep", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--hours", type=click.FloatRange(min=0), default=24.0, show_default=True)
@common_options
def gc(invocation: Invocation, keep: int, hours: float) -> Any:
    """Delete old snapshots, and files of no snapshot."""
    from bitstorm.pipelines import history as pipeline

    found = pipeline.collect_garbage(invocation.context(), keep=keep, hours=hours)
    return invocation.show(
        found,
        lambda: [
            f"{name}: {len(c.snapshots)} snapshots and {len(c.orphans)} orphans removed, "
            f"{c.freed:,} bytes freed"
            for name, c in found.items()
        ],
    )
