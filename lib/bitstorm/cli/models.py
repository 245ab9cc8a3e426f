"""Commands for indicators and models, and `run`, which runs all stages."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import click

from bitstorm import __version__
from bitstorm.cli.common import Invocation, common_options, parse_option, snapshot_option
from bitstorm.cli.data import import_options, import_request
from bitstorm.core.errors import BitstormError, UsageError


@click.command(epilog="Example: bitstorm train --set training.epochs=10")
@click.option("--resume", metavar="RUN", help="Continue this run after its last complete epoch.")
@click.option("--accept-snapshot", is_flag=True, help="Continue it on another snapshot.")
@click.option(
    "--backend",
    type=click.Choice(["tensorflow", "torch"]),
    help="Library that trains.  [default: training.backend]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Spark tasks that share each step.  [default: training.workers]",
)
@snapshot_option
@common_options
def train(
    invocation: Invocation, resume: str | None, accept_snapshot: bool, **chosen: str | int | None
) -> Any:
    """Train a network on the indicators."""
    from bitstorm.pipelines.train import train as pipeline

    settings = [f"training.{name}={value}" for name, value in chosen.items() if value is not None]
    # Last, so that they win over --set.
    invocation = dataclasses.replace(invocation, overrides=(*invocation.overrides, *settings))
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


@click.command(epilog="Example: bitstorm forecast --run RUN")
@click.option(
    "--run",
    "run_name",
    metavar="RUN",
    help="Training run to use.  [default: the newest promoted one, or the newest where none is]",
)
@click.option(
    "--score", is_flag=True, help="Compare all forecasts of the log with the prices that came."
)
@snapshot_option
@common_options
def forecast(invocation: Invocation, run_name: str | None, score: bool) -> Any:
    """Forecast the price with a trained network, and log the forecast."""
    from bitstorm.pipelines.forecast import forecast as pipeline
    from bitstorm.report.summary import summary_text

    if score:
        from bitstorm.cli.render_score import score_lines
        from bitstorm.pipelines.forecast_score import score as score_pipeline

        if run_name is not None:
            raise UsageError("--score is of all runs: leave out --run")
        scored = score_pipeline(invocation.context())
        return invocation.show(scored, lambda: score_lines(scored))
    result = pipeline(invocation.context(), run=run_name)
    return invocation.show(result, lambda: [summary_text(result.metrics)])


@click.command(epilog="Example: bitstorm backtest --set backtest.folds=3")
@snapshot_option
@common_options
def backtest(invocation: Invocation) -> Any:
    """Test network and baselines on folds of the past."""
    from bitstorm.cli.render_backtest import backtest_lines
    from bitstorm.pipelines.backtest import backtest as pipeline

    result = pipeline(invocation.context())
    return invocation.show(result, lambda: backtest_lines(result))


@click.command(epilog="Example: bitstorm verdict --prove --markets 100")
@click.option("--prove", is_flag=True, help="Measure how often each grade is right and wrong.")
@click.option(
    "--markets", type=click.IntRange(min=1), help="Simulated markets of --prove.  [default: 1000]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Random seed of --prove.  [default: 1]")
@common_options
def verdict(invocation: Invocation, prove: bool, markets: int | None, seed: int | None) -> Any:
    """Show whether the last forecast is good, and how sure that is."""
    from bitstorm.cli.render_models import proof_failure, proof_lines, verdict_lines
    from bitstorm.pipelines import verdict as pipeline

    if not prove and (markets is not None or seed is not None):
        raise UsageError("--markets and --seed belong to --prove: add it")
    context = invocation.context()
    if not prove:
        shown = pipeline.verdict(context)
        return invocation.show(shown, lambda: verdict_lines(shown))
    seed = 1 if seed is None else seed
    proof = pipeline.prove_verdict(context, markets=markets or 1_000, seed=seed)
    invocation.show(proof, lambda: proof_lines(proof))
    if proof.broken:
        raise BitstormError(proof_failure(proof))
    return proof


@click.command(epilog="Example: bitstorm tune --set tune.trials=30 --apply")
@click.option(
    "--apply", is_flag=True, help="Write the best values as tuning/best.yaml, for --config."
)
@snapshot_option
@common_options
def tune(invocation: Invocation, apply: bool) -> Any:
    """Search for better settings of the training."""
    from bitstorm.cli.render_tune import tune_lines
    from bitstorm.pipelines.tune import tune as pipeline

    result = pipeline(invocation.context(), apply=apply)
    return invocation.show(result, lambda: tune_lines(result))


@click.command(epilog="Example: bitstorm report")
@click.option(
    "--serve",
    is_flag=True,
    help="Write nothing; serve the dashboard on loopback, always of the newest data, until Ctrl-C.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of --serve; 0 takes any free one.  [default: 0]",
)
@common_options
def report(invocation: Invocation, serve: bool, port: int | None) -> Any:
    """Write plots, summary and dashboard of the last forecast."""
    from bitstorm.pipelines.report import report as pipeline
    from bitstorm.pipelines.report_serve import serve_report

    if serve:
        return serve_report(
            invocation.context(),
            port=port or 0,
            announce=lambda url: invocation.show(
                {"url": url}, lambda: [f"serving {url}  (Ctrl-C ends it)"]
            ),
        )
    if port is not None:
        raise UsageError("--port belongs to --serve: add it")
    result = pipeline(invocation.context())
    return invocation.show(result, lambda: [f"{result.folder}/{name}" for name in result.files])


@click.command(epilog="Example: bitstorm run --csv prices.csv --format auto")
@click.option(
    "--csv", type=click.Path(path_type=Path), help="File with a price history of your own."
)
@import_options
@common_options
def run(invocation: Invocation, csv: Path | None, form: str | None, **options: Any) -> Any:
    """Run collect, ingest, indicators, train, forecast, report."""
    from bitstorm.cli.render_models import outcome_lines
    from bitstorm.pipelines.run import run as pipeline

    wanted = None if csv is None else import_request(csv, form, **options)
    if csv is not None:
        invocation = dataclasses.replace(
            invocation, overrides=("source.mode=csv", *invocation.overrides)
        )
    context = invocation.context()
    context.console.say(f"bitstorm {__version__}, workspace {context.workspace.root}")
    result = pipeline(context, csv=wanted)
    return invocation.show(result, lambda: outcome_lines(result))


@click.command(epilog="Example: bitstorm runs compare RUN RUN")
@click.argument("what", type=click.Choice(["list", "show", "compare"]), default="list")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@common_options
def runs(invocation: Invocation, what: str, names: tuple[str, ...]) -> Any:
    """List, show or compare training runs."""
    from bitstorm.cli.render_models import comparison_lines, run_lines, runs_lines
    from bitstorm.pipelines import runs as pipeline

    limits = {"list": (0, 0, "none"), "show": (1, 1, "one"), "compare": (2, 20, "2 to 20")}
    least, most, expected = limits[what]
    if not least <= len(names) <= most:
        raise UsageError(
            f"found {len(names)} runs for `runs {what}`, expected {expected}: "
            "`bitstorm runs` lists them"
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


@click.command(epilog="Example: bitstorm reproduce RUN --no-train")
@click.argument("name", metavar="RUN")
@click.option("--no-train", is_flag=True, help="Compare data and metrics, but train no network.")
@common_options
def reproduce(invocation: Invocation, name: str, no_train: bool) -> Any:
    """Make a training run again from its record, and compare both."""
    from bitstorm.backtest.reproduce import failure
    from bitstorm.cli.render_data import table
    from bitstorm.core.errors import ModelError
    from bitstorm.pipelines.reproduce import reproduce as pipeline

    result = pipeline(invocation.context(), name, train=not no_train)
    rows = [(step.name, str(step)) for step in result.steps]
    invocation.show(result, lambda: table(rows, whole=True))
    if not result.equal:
        raise ModelError(failure(result))
    return result


@click.command(epilog="Example: bitstorm indicators --set grid.frequency=1d")
@snapshot_option
@common_options
def indicators(invocation: Invocation) -> Any:
    """Compute the indicators from the prices."""
    from bitstorm.cli.render_models import computed_lines
    from bitstorm.pipelines.indicators import indicators as pipeline

    result = pipeline(invocation.context())
    return invocation.show(result, lambda: computed_lines(result))


@click.command(epilog="Example: bitstorm stats --period 1d --bars 30 --output bars.csv")
@click.option("--period", default="1d", show_default=True, help="Length of a bar: 1m, 4h, 1d, 1w.")
@click.option(
    "--bars",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    help="Number of newest bars to show.",
)
@click.option(
    "--lags",
    default="1,24,168",
    show_default=True,
    help="Lags of the autocorrelation, in steps of the grid.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write all bars to this CSV file.")
@snapshot_option
@common_options
def stats(invocation: Invocation, period: str, bars: int, lags: str, output: Path | None) -> Any:
    """Show statistics of the returns, and bars of any period."""
    from bitstorm.cli.render_models import stats_lines
    from bitstorm.core.time import duration_ms
    from bitstorm.pipelines.stats import stats as pipeline

    period_ms, steps = parse_option("--period", duration_ms, period), _lags(lags)
    context = invocation.context()
    result = pipeline(context, period_ms=period_ms, bars=bars, lags=steps, output=output)
    return invocation.show(result, lambda: stats_lines(result))


def _lags(text: str) -> list[int]:
    """Different positive integers, separated by commas. Raises UsageError for other texts."""
    lags = [int(part) for part in text.split(",") if re.fullmatch(r"\s*[0-9]{1,6}\s*", part)]
    if len(lags) != text.count(",") + 1 or 0 in lags or len(set(lags)) < len(lags):
        raise UsageError(
            f"--lags: found {text!r}, expected different numbers of steps from 1 to 999999, "
            "separated by commas: 1,24,168"
        )
    return lags


@click.command("check-lookahead", epilog="Example: bitstorm check-lookahead --cuts 20")
@click.option("--cuts", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Random seed of the cut times.  [default: random, printed]",
)
@click.option(
    "--plant", is_flag=True, help="Add a column that looks ahead; succeed when it is found."
)
@snapshot_option
@common_options
def check_lookahead(invocation: Invocation, cuts: int, seed: int | None, plant: bool) -> Any:
    """Check that no indicator depends on later prices."""
    from bitstorm.cli.render_models import lookahead_failure, lookahead_lines
    from bitstorm.core.errors import LookAhead
    from bitstorm.pipelines.lookahead import check_lookahead as pipeline

    result = pipeline(invocation.context(), cuts=cuts, seed=seed, plant=plant)
    invocation.show(result, lambda: lookahead_lines(result))
    if not result.passed:
        raise LookAhead(lookahead_failure(result))
    return result


PLANTS = ("scaler", "feature", "embargo", "target", "validation", "conformal")


@click.command("check-leakage", epilog="Example: bitstorm check-leakage --plant embargo")
@click.option(
    "--cuts",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Random times in the test parts; each fold has three more.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Random seed of the cut times.  [default: random, printed]",
)
@click.option(
    "--plant", type=click.Choice(PLANTS), help="Add this leak; succeed when it is found and named."
)
@click.option("--network", is_flag=True, help="Train a small network, too: three times.")
@snapshot_option
@common_options
def check_leakage(
    invocation: Invocation, cuts: int, seed: int | None, plant: str | None, network: bool
) -> Any:
    """Check that no part of a back-test depends on later prices."""
    from bitstorm.cli.render_backtest import leakage_failure, leakage_lines
    from bitstorm.core.errors import LookAhead
    from bitstorm.pipelines.leakage import check_leakage as pipeline

    context = invocation.context()
    result = pipeline(context, cuts=cuts, seed=seed, plant=plant, network=network)
    invocation.show(result, lambda: leakage_lines(result))
    if not result.passed:
        raise LookAhead(leakage_failure(result))
    return result
