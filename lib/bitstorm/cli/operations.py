"""Commands that operate a workspace: status, history, verify, rollback, gc, doctor, config,
simulate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bitstorm.cli.common import Invocation, common_options, parse_option, snapshot_option


@click.group()
def config() -> None:
    """Show the settings."""


@config.command("show", epilog="Example: bitstorm config show --set grid.frequency=1d")
@common_options
def config_show(invocation: Invocation) -> Any:
    """Show every setting, its value and its origin."""
    from bitstorm.core.config import load

    loaded = load(files=invocation.config_files, environ=os.environ, overrides=invocation.overrides)
    rows = loaded.rows()
    width = max(len(key) for key, _, _ in rows)
    return invocation.show(
        {key: {"value": value, "origin": origin} for key, value, origin in rows},
        lambda: [f"{key:<{width}}  {value!s:<14}  {origin}" for key, value, origin in rows],
    )


@click.command(epilog="Example: bitstorm simulate --port 8080")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes any free one.")
@click.option(
    "--replay", type=click.Path(path_type=Path), help="File with a recorded market chart to serve."
)
@click.option(
    "--plan", type=click.Choice(["keyless", "demo", "pro"]), default="keyless", show_default=True
)
@common_options
def simulate(invocation: Invocation, **options: Any) -> Any:
    """Serve a simulated market as CoinGecko's API, on loopback."""
    from bitstorm.pipelines.simulate import simulate as pipeline

    def announce(address: str) -> None:
        invocation.show({"base_url": address}, lambda: [f"serving {address}  (Ctrl-C ends it)"])

    return pipeline(invocation.context(), announce=announce, **options)


@click.command(epilog="Example: bitstorm doctor --json")
@click.option(
    "--cluster",
    is_flag=True,
    help="Also start Spark, and ask each executor for its Python and packages.",
)
@common_options
def doctor(invocation: Invocation, cluster: bool) -> Any:
    """Look for what would stop a command on this machine.

    Looks at Python, Java, Spark's variables, host name, locale, disk, ports, network and workspace.
    Exits with 1 when something would stop a command.
    """
    from bitstorm.core.errors import EnvironmentProblem
    from bitstorm.pipelines.doctor import doctor as pipeline

    result = pipeline(invocation.context(), cluster=cluster)
    invocation.show(
        result, lambda: [f"{check.state:<5} {check.name:<10} {check}" for check in result.checks]
    )
    if not result.healthy:
        names = [check.name for check in result.checks if check.state == "stop"]
        raise EnvironmentProblem(f"{', '.join(names)} would stop a command")
    return result


@click.command(epilog="Example: bitstorm status --metrics /var/lib/node_exporter/bitstorm.prom")
@click.option(
    "--metrics",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the numbers to this file, in Prometheus' text format.",
)
@snapshot_option
@common_options
def status(invocation: Invocation, metrics: Path | None) -> Any:
    """Show rows, span, gaps and age of the data."""
    from bitstorm.cli.render_data import status_lines
    from bitstorm.pipelines.status import status as pipeline
    from bitstorm.pipelines.status import write_prometheus

    context = invocation.context()
    result = pipeline(context)
    if metrics is not None:
        write_prometheus(context, result, metrics)
    return invocation.show(result, lambda: status_lines(result, context.workspace.root))


@click.command(epilog="Example: bitstorm history --row 2026-11-23T04:14:00Z")
@click.option(
    "--row", metavar="TIMESTAMP", help="Show the batch and line of the price at this time."
)
@snapshot_option
@common_options
def history(invocation: Invocation, row: str | None) -> Any:
    """List the snapshots, newest first."""
    from bitstorm.cli.render_data import history_lines, trace_lines
    from bitstorm.core.time import parse_instant
    from bitstorm.pipelines import history as pipeline

    if row is None:
        commits = pipeline.history(invocation.context())
        return invocation.show(commits, lambda: history_lines(commits))
    timestamp_ms = parse_option("--row", parse_instant, row)
    found = pipeline.trace(invocation.context(), timestamp_ms)
    return invocation.show(found, lambda: trace_lines(found))


@click.command(epilog="Example: bitstorm verify")
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


@click.command(epilog='Example: bitstorm rollback 00000001-023cf8b0bccd --reason "a wrong source"')
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


@click.command(epilog="Example: bitstorm gc --keep 10 --hours 24")
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
