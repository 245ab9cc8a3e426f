"""The commands: arguments in, one pipeline each, results out. Heavy imports wait in the bodies."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitstorm import __version__
from bitstorm.core.errors import BitstormError, NothingToDo, UsageError, first_line
from bitstorm.spark import failures

if TYPE_CHECKING:
    from bitstorm.context import Context
    from bitstorm.pipelines.imports import Foreign

DONE, FAILED, USAGE, IDLE = 0, 1, 2, 3
INTERRUPTED = 130


class _Commands(click.Group):
    """Commands in the order of the data's way, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bitstorm")
def bitstorm() -> None:
    """Bitcoin price batches through Spark and Petastorm to a forecast you can trust."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has, and its errors as exit codes."""

    @click.option(
        "--config",
        "config_files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A YAML file over the defaults; may be repeated.",
    )
    @click.option("--workspace", help="The folder of all data.  [default: workspace]")
    @click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
    @click.option("--quiet", is_flag=True, help="No progress.")
    @click.option("--log-file", type=click.Path(path_type=Path), help="Keep the progress there.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option("--fail-if-idle", is_flag=True, help="Exit 3 when there was nothing to do.")
    @functools.wraps(command)
    def wrapped(*, debug: bool, fail_if_idle: bool, **given: Any) -> int:
        common = [field.name for field in dataclasses.fields(Invocation)]
        invocation = Invocation(**{name: given.pop(name, None) for name in common})
        try:
            result = command(invocation, **given)
            if fail_if_idle and getattr(result, "idle", getattr(result, "stale", False)):
                return IDLE
            return DONE
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except NothingToDo as error:
            click.echo(f"bitstorm: {error}", err=True)
            return IDLE if fail_if_idle else DONE
        except BitstormError as error:
            if debug:
                raise
            click.echo(f"bitstorm: {error}", err=True)
            return error.exit_code
        except Exception as error:
            if debug:
                raise
            told = failures.refused(error) if isinstance(error, OSError) else None
            if told is not None:
                click.echo(f"bitstorm: {told}", err=True)
                return FAILED
            click.echo(
                f"bitstorm: an unexpected {type(error).__name__}: {first_line(error)}; run again "
                "with --debug to see where, and please report it",
                err=True,
            )
            return FAILED

    return wrapped


@dataclasses.dataclass(frozen=True)
class Invocation:
    """The common options as given; settings and workspace are opened when a command asks."""

    config_files: tuple[Path, ...]
    workspace: str | None
    overrides: tuple[str, ...]
    as_json: bool
    quiet: bool
    log_file: Path | None
    snapshot: str | None

    def context(self) -> Context:
        """Settings, workspace and console; third parties are silenced from here on."""
        from bitstorm.context import Context
        from bitstorm.core import third_party_noise
        from bitstorm.core.config import load
        from bitstorm.core.console import Console
        from bitstorm.core.workspace import DEFAULT_WORKSPACE, open_workspace
        from bitstorm.spark.session import under_spark_submit

        third_party_noise.install_filters()
        third_party_noise.hush_loggers()
        loaded = load(files=self.config_files, environ=os.environ, overrides=self.overrides)
        # spark-submit sends a job's standard error to its standard output, into the JSON.
        hushed = self.quiet or (self.as_json and under_spark_submit())
        return Context(
            open_workspace(self.workspace or DEFAULT_WORKSPACE),
            loaded.settings,
            Console(hushed, self.log_file),
            self.snapshot,
        )

    def show(self, result: Any, lines: Callable[[], Sequence[str]]) -> Any:
        """The result on standard output: as JSON, or as the command's own lines."""
        if self.as_json:
            click.echo(json.dumps(_plain(result), indent=2))
        else:
            for line in lines():
                click.echo(line)
        return result


def _parsed(option: str, parse: Callable[[str], int], text: str) -> int:
    """The value of an option. Raises UsageError where it cannot be read."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _foreign_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--timestamp-column", help="The column of the time."),
            click.option("--price-column", help="The column of the price."),
            click.option("--unit", type=click.Choice(["s", "ms", "us", "iso"])),
            click.option(
                "--stamp",
                type=click.Choice(["close", "open"]),
                help="What a bar's stamp is; a close belongs to open + bar.  [default: as it is]",
            ),
            click.option("--bar", help="The length of a bar, such as 1h."),
            click.option("--timezone", metavar="NAME", help="Of times without one.  [UTC]"),
            click.option("--delimiter", help="Between cells.  [default: by the header]"),
            click.option("--decimal", type=click.Choice([".", ","]), help="Before a fraction."),
            click.option(
                "--format",
                "form",
                type=click.Choice(["auto"]),
                help="Recognise well-known files and columns.",
            ),
        ]
    ):
        command = option(command)
    return command


def _foreign(file: Path, form: str | None, **options: Any) -> Foreign:
    from bitstorm.pipelines.imports import Foreign

    return Foreign(file, auto=form == "auto", **options)


_snapshot_option = click.option("--snapshot", metavar="ID", help="Read this one, not the newest.")


@bitstorm.command()
@click.option("--every", metavar="DURATION", help="Keep going, on the clock: 5m, 1h.")
@_options
def collect(invocation: Invocation, every: str | None) -> Any:
    """One live observation into one CSV batch."""
    from bitstorm.core.time import duration_ms, iso
    from bitstorm.pipelines.collect import collect as pipeline

    if every is not None:
        from bitstorm.pipelines.schedule import collect_every

        kept = collect_every(invocation.context(), _parsed("--every", duration_ms, every))
        return invocation.show(
            kept,
            lambda: [
                f"stopped after {kept.runs:,} looks: {kept.landed:,} landed, {kept.stale:,} stale, "
                f"{kept.failed:,} failed"
            ],
        )
    result = pipeline(invocation.context())
    seen = f"{result.observation.price:,.2f} at {iso(result.observation.timestamp)}"
    return invocation.show(
        result,
        lambda: [
            f"{seen}: stale, it has landed before"
            if result.batch is None
            else f"{seen} → {result.batch.path}"
        ],
    )


@bitstorm.command()
@click.option("--days", type=click.IntRange(min=1), help="Days of history.  [backfill.days]")
@click.option("--until", metavar="TIME", help="Its end: ISO-8601 or Unix seconds.  [default: now]")
@click.option("--gaps", is_flag=True, help="Only what `gaps` says is to be asked for.")
@click.option("--dry-run", is_flag=True, help="Show the slices and their cost, fetch nothing.")
@_options
def backfill(
    invocation: Invocation, days: int | None, until: str | None, gaps: bool, dry_run: bool
) -> Any:
    """History up to now, in slices, only what is missing."""
    from bitstorm.core.time import parse_instant
    from bitstorm.pipelines import collect as pipeline
    from bitstorm.terminal import backfilled_lines, planned_lines

    until_ms = None if until is None else _parsed("--until", parse_instant, until)
    context = invocation.context()
    if dry_run:
        plan = pipeline.plan(context, days=days, until_ms=until_ms, gaps_only=gaps)
        return invocation.show(plan, lambda: planned_lines(plan))
    result = pipeline.backfill(context, days=days, until_ms=until_ms, gaps_only=gaps)
    return invocation.show(result, lambda: backfilled_lines(result))


@bitstorm.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_foreign_options
@click.option("--preview", is_flag=True, help="Show the first rows as they would be taken.")
@_options
def import_(
    invocation: Invocation, file: Path, form: str | None, preview: bool, **options: Any
) -> Any:
    """A foreign CSV or CSV.gz into a batch."""
    from bitstorm.pipelines import imports

    wanted = _foreign(file, form, **options)
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


@bitstorm.command()
@click.option("--replay-rejects", is_flag=True, help="Judge refused rows again, as set now.")
@_options
def ingest(invocation: Invocation, replay_rejects: bool) -> Any:
    """New batches into the prices data set."""
    from bitstorm.pipelines.ingest import ingest as take
    from bitstorm.pipelines.replay import replay
    from bitstorm.terminal import ingested_lines

    context = invocation.context()
    result = replay(context) if replay_rejects else take(context)
    return invocation.show(
        result, lambda: ingested_lines(result, rejects=context.workspace.rejects)
    )


@bitstorm.command()
@_snapshot_option
@_options
def indicators(invocation: Invocation) -> Any:
    """Prices into the indicators data set."""
    from bitstorm.pipelines.indicators import indicators as pipeline
    from bitstorm.terminal import computed_lines

    result = pipeline(invocation.context())
    return invocation.show(result, lambda: computed_lines(result))


@bitstorm.command()
@click.option("--period", default="1d", show_default=True, help="Of a bar: 1m, 4h, 1d, 1w.")
@click.option(
    "--bars",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    help="How many of the newest to show.",
)
@click.option(
    "--lags", default="1,24,168", show_default=True, help="Of the autocorrelation, in grid steps."
)
@click.option("--output", type=click.Path(path_type=Path), help="All bars, into this CSV file.")
@_snapshot_option
@_options
def stats(invocation: Invocation, period: str, bars: int, lags: str, output: Path | None) -> Any:
    """Statistics of the returns, and bars of any period."""
    from bitstorm.core.time import duration_ms
    from bitstorm.pipelines.stats import stats as pipeline
    from bitstorm.terminal import stats_lines

    period_ms = _parsed("--period", duration_ms, period)
    steps = _lags(lags)
    result = pipeline(
        invocation.context(), period_ms=period_ms, bars=bars, lags=steps, output=output
    )
    return invocation.show(result, lambda: stats_lines(result))


def _lags(text: str) -> list[int]:
    """Numbers between commas. Raises UsageError for anything else, 0 and repeated ones included."""
    lags = [int(part) for part in text.split(",") if re.fullmatch(r"\s*[0-9]{1,6}\s*", part)]
    if len(lags) != text.count(",") + 1 or 0 in lags or len(set(lags)) < len(lags):
        raise UsageError(
            f"--lags: {text!r} is not a list of lags; write different numbers of steps from 1 to "
            "999999 with commas between: 1,24,168"
        )
    return lags


@bitstorm.command()
@click.option("--resume", metavar="RUN", help="Go on with a run after its last whole epoch.")
@click.option("--accept-snapshot", is_flag=True, help="Go on with it on another snapshot.")
@click.option(
    "--backend",
    type=click.Choice(["tensorflow", "torch"]),
    help="What trains it.  [default: training.backend]",
)
@_snapshot_option
@_options
def train(
    invocation: Invocation, resume: str | None, accept_snapshot: bool, backend: str | None
) -> Any:
    """Indicators into a model run."""
    from bitstorm.pipelines.train import train as pipeline

    if backend is not None:
        # Last, so that it wins over a --set of the same.
        invocation = dataclasses.replace(
            invocation, overrides=(*invocation.overrides, f"training.backend={backend}")
        )
    if accept_snapshot and resume is None:
        raise UsageError("--accept-snapshot belongs to --resume RUN: add it")
    result = pipeline(invocation.context(), resume=resume, accept_snapshot=accept_snapshot)
    return invocation.show(
        result,
        lambda: [
            f"run {result.run}: best of {result.epochs} epochs is {result.best_epoch}, "
            f"validation loss {result.best_validation_loss:.4f}"
        ],
    )


@bitstorm.command()
@click.option("--run", "run_name", metavar="RUN", help="A training run.  [default: the newest]")
@_snapshot_option
@_options
def forecast(invocation: Invocation, run_name: str | None) -> Any:
    """The newest model on the newest data, held against persistence."""
    from bitstorm.pipelines.forecast import forecast as pipeline
    from bitstorm.report.summary import summary_text

    result = pipeline(invocation.context(), run=run_name)
    return invocation.show(result, lambda: [summary_text(result.metrics)])


@bitstorm.command()
@_options
def report(invocation: Invocation) -> Any:
    """Plots, summary and dashboard of the last forecast."""
    from bitstorm.pipelines.report import report as pipeline

    result = pipeline(invocation.context())
    return invocation.show(result, lambda: [f"{result.folder}/{name}" for name in result.files])


@bitstorm.command()
@click.option("--csv", type=click.Path(path_type=Path), help="A price history of your own.")
@_foreign_options
@_options
def run(invocation: Invocation, csv: Path | None, form: str | None, **options: Any) -> Any:
    """All of it: collect, ingest, indicators, train, forecast, report."""
    from bitstorm.pipelines.run import run as pipeline
    from bitstorm.terminal import outcome_lines

    wanted = None if csv is None else _foreign(csv, form, **options)
    if csv is not None:
        invocation = dataclasses.replace(
            invocation, overrides=("source.mode=csv", *invocation.overrides)
        )
    context = invocation.context()
    context.console.say(f"bitstorm {__version__}, workspace {context.workspace.root}")
    result = pipeline(context, csv=wanted)
    return invocation.show(result, lambda: outcome_lines(result))


@bitstorm.command()
@_snapshot_option
@_options
def status(invocation: Invocation) -> Any:
    """What is there: rows, span, gaps, freshness."""
    from bitstorm.pipelines.status import status as pipeline
    from bitstorm.terminal import status_lines

    context = invocation.context()
    result = pipeline(context)
    return invocation.show(result, lambda: status_lines(result, context.workspace.root))


@bitstorm.command()
@_snapshot_option
@_options
def gaps(invocation: Invocation) -> Any:
    """Expected slots of the grid against what is there."""
    from bitstorm.pipelines.gaps import find_gaps
    from bitstorm.terminal import gaps_lines

    found = find_gaps(invocation.context())
    return invocation.show(found, lambda: gaps_lines(found))


@bitstorm.command()
@click.option("--row", metavar="TIMESTAMP", help="Which batch and line a row of prices is from.")
@_snapshot_option
@_options
def history(invocation: Invocation, row: str | None) -> Any:
    """The snapshots, newest first."""
    from bitstorm.core.time import parse_instant
    from bitstorm.pipelines import history as pipeline
    from bitstorm.terminal import history_lines, trace_lines

    if row is None:
        commits = pipeline.history(invocation.context())
        return invocation.show(commits, lambda: history_lines(commits))
    timestamp_ms = _parsed("--row", parse_instant, row)
    found = pipeline.trace(invocation.context(), timestamp_ms)
    return invocation.show(found, lambda: trace_lines(found))


@bitstorm.command()
@click.argument("what", type=click.Choice(["list", "show", "compare"]), default="list")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@_options
def runs(invocation: Invocation, what: str, names: tuple[str, ...]) -> Any:
    """The training runs: `list`, `show RUN`, `compare RUN RUN...`."""
    from bitstorm.pipelines import runs as pipeline
    from bitstorm.terminal import comparison_lines, run_lines, runs_lines

    expected = {"list": (0, 0), "show": (1, 1), "compare": (2, 20)}[what]
    if not expected[0] <= len(names) <= expected[1]:
        raise UsageError(
            f"runs {what} was given {len(names)} runs; expected "
            + {"list": "none", "show": "one", "compare": "2 to 20"}[what]
            + ": `bitstorm runs` lists them"
        )
    context = invocation.context()
    if what == "show":
        shown = pipeline.show(context, names[0])
        return invocation.show(shown, lambda: run_lines(shown))
    if what == "compare":
        compared = pipeline.compare(context, names)
        return invocation.show(compared, lambda: comparison_lines(compared))
    overviews = pipeline.overviews(context)
    return invocation.show(overviews, lambda: runs_lines(overviews))


@bitstorm.command("check-lookahead")
@click.option("--cuts", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), help="Draws the cuts.  [default: any, told]")
@click.option("--plant", is_flag=True, help="Plant a look-ahead; pass when it is caught.")
@_snapshot_option
@_options
def check_lookahead(invocation: Invocation, cuts: int, seed: int | None, plant: bool) -> Any:
    """Show that no indicator depends on later prices."""
    from bitstorm.core.errors import LookAhead
    from bitstorm.pipelines.lookahead import check_lookahead as pipeline
    from bitstorm.terminal import lookahead_failure, lookahead_lines

    result = pipeline(invocation.context(), cuts=cuts, seed=seed, plant=plant)
    invocation.show(result, lambda: lookahead_lines(result))
    if not result.passed:
        raise LookAhead(lookahead_failure(result))
    return result


@bitstorm.command()
@_options
def verify(invocation: Invocation) -> Any:
    """Re-check every hash and count."""
    from bitstorm.pipelines import history as pipeline

    found = pipeline.verify(invocation.context())
    return invocation.show(
        found,
        lambda: [
            f"{name}: {v.snapshots} snapshots, {v.files} files, {v.size:,} bytes, all as written"
            for name, v in found.items()
        ],
    )


@bitstorm.command()
@click.argument("batch")
@click.option("--reason", required=True, help="Why; it stays in the history.")
@_options
def retract(invocation: Invocation, batch: str, reason: str) -> Any:
    """Take a wrong batch out again, as a new snapshot."""
    from bitstorm.pipelines.retract import retract as pipeline
    from bitstorm.terminal import retracted_lines

    result = pipeline(invocation.context(), batch, reason=reason)
    return invocation.show(result, lambda: retracted_lines(result))


@bitstorm.command()
@click.argument("snapshot_id", metavar="ID")
@click.option("--reason", default="", help="Why; it stays in the history.")
@_options
def rollback(invocation: Invocation, snapshot_id: str, reason: str) -> Any:
    """Make an older snapshot current again, as a new commit."""
    from bitstorm.pipelines import history as pipeline

    result = pipeline.rollback(invocation.context(), snapshot_id, reason=reason)
    return invocation.show(
        result,
        lambda: [
            f"{result.data_set}: {result.snapshot} is current again, {result.rows:,} rows; "
            "batches ingested since then count as new"
        ],
    )


@bitstorm.command()
@click.option("--keep", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--hours", type=click.FloatRange(min=0), default=24.0, show_default=True)
@_options
def gc(invocation: Invocation, keep: int, hours: float) -> Any:
    """Remove old snapshots, and what no snapshot names."""
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


@bitstorm.group()
def config() -> None:
    """The settings."""


@config.command("show")
@_options
def config_show(invocation: Invocation) -> Any:
    """Every setting, its value and where it came from."""
    from bitstorm.core.config import load

    loaded = load(files=invocation.config_files, environ=os.environ, overrides=invocation.overrides)
    rows = loaded.rows()
    width = max(len(key) for key, _, _ in rows)
    return invocation.show(
        {key: {"value": value, "origin": origin} for key, value, origin in rows},
        lambda: [f"{key:<{width}}  {value!s:<14}  {origin}" for key, value, origin in rows],
    )


@bitstorm.command()
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--replay", type=click.Path(path_type=Path), help="A recorded market chart.")
@click.option("--faults", type=click.Path(path_type=Path), help="A script of wrong answers.")
@click.option(
    "--plan", type=click.Choice(["keyless", "demo", "pro"]), default="keyless", show_default=True
)
@click.option("--limited", is_flag=True, help="Refuse more calls and credits than the plan has.")
@_options
def simulate(invocation: Invocation, **options: Any) -> Any:
    """The simulated market as a CoinGecko-compatible API on loopback."""
    from bitstorm.pipelines.simulate import simulate as pipeline

    def announce(address: str) -> None:
        invocation.show({"base_url": address}, lambda: [f"serving {address}  (Ctrl-C ends it)"])

    return pipeline(invocation.context(), announce=announce, **options)


def _plain(value: Any) -> Any:
    """A result as JSON knows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: _plain(item) for name, item in fields.items()}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of `bitstorm` and of the jobs; ends the process with the exit code."""
    _end(exit_code(arguments))


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run a command in this process; what the process is to end with."""
    try:
        code = bitstorm.main(args=arguments, prog_name="bitstorm", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    return code if isinstance(code, int) else DONE


def _end(code: int) -> None:
    """Exit; where TensorFlow is loaded without the seconds that it takes to clear its memory."""
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
