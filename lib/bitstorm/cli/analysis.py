"""Commands on the indicators: indicators, stats, check-lookahead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bitstorm.cli.common import Invocation, common_options, parsed, snapshot_option
from bitstorm.core.errors import UsageError


@click.command()
@snapshot_option
@common_options
def indicators(invocation: Invocation) -> Any:
    """Compute the indicators from the prices."""
    from bitstorm.cli.render.analysis import computed_lines
    from bitstorm.pipelines.indicators import indicators as pipeline

    result = pipeline(invocation.context())
    return invocation.show(result, lambda: computed_lines(result))


@click.command()
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
    from bitstorm.cli.render.analysis import stats_lines
    from bitstorm.core.time import duration_ms
    from bitstorm.pipelines.stats import stats as pipeline

    period_ms = parsed("--period", duration_ms, period)
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


@click.command("check-lookahead")
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
    from bitstorm.cli.render.analysis import lookahead_failure, lookahead_lines
    from bitstorm.core.errors import LookAhead
    from bitstorm.pipelines.lookahead import check_lookahead as pipeline

    result = pipeline(invocation.context(), cuts=cuts, seed=seed, plant=plant)
    invocation.show(result, lambda: lookahead_lines(result))
    if not result.passed:
        raise LookAhead(lookahead_failure(result))
    return result
