"""Commands that bring prices in: collect, backfill, import, ingest, gaps, retract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitstorm.cli.common import Invocation, common_options, parse_option, snapshot_option

if TYPE_CHECKING:
    from bitstorm.pipelines.imports import ImportOptions


def import_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `import`, in this order."""
    for option in reversed(
        [
            click.option(
                "--timestamp-column",
                metavar="NAME[+NAME]",
                help="Column of the time, or those of date and time.",
            ),
            click.option("--price-column", help="Column of the price."),
            click.option("--unit", type=click.Choice(["s", "ms", "us", "ns", "iso"])),
            click.option(
                "--date-format", metavar="PATTERN", help="Form of the dates, such as %d.%m.%Y."
            ),
            click.option(
                "--stamp",
                type=click.Choice(["close", "open"]),
                help="Whether the time of a bar is its open or its close.  [default: unchanged]",
            ),
            click.option("--bar", help="Length of a bar, such as 1h."),
            click.option(
                "--timezone", metavar="NAME", help="Time zone of times without one.  [default: UTC]"
            ),
            click.option(
                "--delimiter", help="Character between cells.  [default: found in the header]"
            ),
            click.option(
                "--decimal", type=click.Choice([".", ","]), help="Decimal mark of a price."
            ),
            click.option(
                "--format",
                "form",
                type=click.Choice(["auto"]),
                help="Recognize well-known files and columns.",
            ),
        ]
    ):
        command = option(command)
    return command


def import_request(file: Path, form: str | None, **options: Any) -> ImportOptions:
    """The request for `pipelines.imports`, from the values of `import_options`."""
    from bitstorm.pipelines.imports import ImportOptions

    return ImportOptions(file, auto=form == "auto", **options)


@click.command(epilog="Example: bitstorm collect --every 1h")
@click.option("--every", metavar="DURATION", help="Repeat at this interval: 5m, 1h.")
@common_options
def collect(invocation: Invocation, every: str | None) -> Any:
    """Fetch the current price into a new batch."""
    from bitstorm.core.time import duration_ms, iso
    from bitstorm.pipelines.collect import collect as pipeline

    if every is not None:
        from bitstorm.pipelines.schedule import collect_every

        counts = collect_every(invocation.context(), parse_option("--every", duration_ms, every))
        return invocation.show(
            counts,
            lambda: [
                f"stopped after {counts.runs:,} requests: {counts.landed:,} landed, "
                f"{counts.stale:,} stale, {counts.failed:,} failed"
            ],
        )
    result = pipeline(invocation.context())
    seen = f"{result.observation.price:,.2f} at {iso(result.observation.timestamp)}"
    return invocation.show(
        result,
        lambda: [
            f"{seen}: stale, landed before"
            if result.batch is None
            else f"{seen} → {result.batch.path}"
        ],
    )


@click.command(epilog="Example: bitstorm backfill --days 30")
@click.option(
    "--days", type=click.IntRange(min=1), help="Days of history.  [default: backfill.days]"
)
@click.option("--from", "start", metavar="TIME", help="Start of the history, instead of --days.")
@click.option(
    "--until",
    "--to",
    metavar="TIME",
    help="End of the history: ISO-8601 or Unix seconds.  [default: now]",
)
@click.option("--gaps", is_flag=True, help="Fetch only the missing hours that `gaps` lists.")
@click.option(
    "--again", is_flag=True, help="Fetch all its hours anew, whatever earlier answers said."
)
@click.option("--dry-run", is_flag=True, help="Show the requests and their cost; fetch nothing.")
@common_options
def backfill(
    invocation: Invocation,
    days: int | None,
    start: str | None,
    until: str | None,
    gaps: bool,
    again: bool,
    dry_run: bool,
) -> Any:
    """Fetch the missing history up to now."""
    from bitstorm.cli.render_data import backfilled_lines, planned_lines
    from bitstorm.core.time import parse_instant
    from bitstorm.pipelines import backfill as pipeline

    wanted: dict[str, Any] = {
        "days": days,
        "from_ms": None if start is None else parse_option("--from", parse_instant, start),
        "until_ms": None if until is None else parse_option("--until", parse_instant, until),
        "gaps_only": gaps,
        "again": again,
    }
    context = invocation.context()
    if dry_run:
        plan = pipeline.plan(context, **wanted)
        return invocation.show(plan, lambda: planned_lines(plan))
    result = pipeline.backfill(context, **wanted)
    return invocation.show(result, lambda: backfilled_lines(result))


@click.command("import", epilog="Example: bitstorm import prices.csv --format auto --preview")
@click.argument("file", type=click.Path(path_type=Path))
@import_options
@click.option("--preview", is_flag=True, help="Show the first rows as they would be imported.")
@common_options
def import_(
    invocation: Invocation, file: Path, form: str | None, preview: bool, **options: Any
) -> Any:
    """Import a CSV or Parquet file, packed or not, as a batch."""
    from bitstorm.pipelines import imports

    wanted = import_request(file, form, **options)
    if preview:
        shown = imports.preview(invocation.context(), wanted)
        rows = [", ".join(shown.columns), *[", ".join(row) for row in shown.rows]]
        return invocation.show(shown, lambda: [*rows, *[f"note: {n}" for n in shown.notes]])
    result = imports.import_file(invocation.context(), wanted)
    return invocation.show(
        result,
        lambda: [
            f"{result.rows:,} rows → {result.batch.path}",
            *[f"note: {note}" for note in result.notes],
        ],
    )


@click.command(epilog="Example: bitstorm ingest")
@click.option(
    "--replay-rejects", is_flag=True, help="Check the refused rows again, with the current rules."
)
@common_options
def ingest(invocation: Invocation, replay_rejects: bool) -> Any:
    """Add the new batches to the prices."""
    from bitstorm.cli.render_data import ingested_lines
    from bitstorm.pipelines.ingest import ingest as take
    from bitstorm.pipelines.replay import replay

    context = invocation.context()
    result = replay(context) if replay_rejects else take(context)
    return invocation.show(
        result, lambda: ingested_lines(result, rejects=context.workspace.rejects)
    )


@click.command(epilog="Example: bitstorm gaps --json")
@snapshot_option
@common_options
def gaps(invocation: Invocation) -> Any:
    """List the gaps: times that should have a price."""
    from bitstorm.cli.render_data import gaps_lines
    from bitstorm.pipelines.gaps import find_gaps

    found = find_gaps(invocation.context())
    return invocation.show(found, lambda: gaps_lines(found))


@click.command(epilog='Example: bitstorm retract mine.csv --reason "a test feed"')
@click.argument("batch")
@click.option("--reason", required=True, help="Reason; the history keeps it.")
@common_options
def retract(invocation: Invocation, batch: str, reason: str) -> Any:
    """Remove a wrong batch, in a new snapshot."""
    from bitstorm.cli.render_data import retracted_lines
    from bitstorm.pipelines.retract import retract as pipeline

    result = pipeline(invocation.context(), batch, reason=reason)
    return invocation.show(result, lambda: retracted_lines(result))
