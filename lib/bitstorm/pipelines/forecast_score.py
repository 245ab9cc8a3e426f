"""`forecast --score`: the logged forecasts and the prices that came."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitstorm.backtest import forecast_log
from bitstorm.backtest.forecast_log import Outcomes, Score
from bitstorm.context import Context
from bitstorm.core.schema import FORECASTS
from bitstorm.model import blocks
from bitstorm.report.results import ScorePicture
from bitstorm.store import manifest as manifests
from bitstorm.store import snapshots
from bitstorm.store.append import stored_rows
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import pandas as pd

# The volatility before the first outcome forgets older steps: 0.97 ** 1000 is 6e-14.
_STEPS_BEFORE = 1_000


@dataclass(frozen=True, repr=False)
class Scored(ScorePicture):
    """The snapshots of log and outcomes in the folder `workspace`, or in its `store`; the score of
    all runs together, and of each run."""

    workspace: str
    store: str | None
    forecasts: str
    indicators: str
    all_runs: Score
    runs: tuple[Score, ...]


@dataclass(frozen=True)
class Logged:
    """The log's rows, and where their outcomes are found."""

    log: Snapshot
    indicators: Snapshot
    rows: pd.DataFrame
    outcomes: Outcomes


def logged(context: Context) -> Logged:
    """The log, and the newest indicators from shortly before it. Raises SnapshotMissing,
    SnapshotDamaged."""
    workspace = context.workspace
    log = snapshots.required(workspace.forecasts)
    snapshots.check_content(log)
    indicators = snapshots.required(workspace.indicators, snapshot=context.snapshot)
    rows = stored_rows(log, FORECASTS).to_pandas()
    step = blocks.step_of(indicators)
    begin = int(rows["origin"].min()) - _STEPS_BEFORE * step
    first, prices = blocks.observed_prices(indicators, after_ms=begin)
    frequency = indicators.manifest.details["frequency"]
    source = str(workspace.bound_to() or context.origin())
    return Logged(log, indicators, rows, Outcomes(first, prices, step, frequency, source))


def score(context: Context) -> Scored:
    """Join every logged forecast with the price that came, from the newest indicators. Raises
    SnapshotMissing, SnapshotDamaged."""
    read = logged(context)
    found = forecast_log.score(read.rows, read.outcomes, fee=context.settings.forecast.fee)
    place = str(context.workspace.root), context.workspace.store
    return Scored(*place, read.log.id, read.indicators.id, found[0], found[1:])


def score_overview(context: Context) -> dict[str, Any] | None:
    """The score of all runs in short, for `status`; None without log or indicators.

    `coverage` is by level in percent, the e-values are of step 1."""
    if not has_log(context):
        return None
    found = score(context).all_runs
    coverage = {of.level: of.share for of in found.coverage if of.level in (80, 90)}
    return {**facts_of(found), "coverage": coverage}


def has_log(context: Context) -> bool:
    """Whether there are a log and indicators."""
    roots = (context.workspace.forecasts, context.workspace.indicators)
    return all(map(manifests.sequences, roots))


def facts_of(found: Score) -> dict[str, Any]:
    """The counts, the e-values of step 1, the verdict and the drift of a score."""
    evidence = {"information": found.grades.information, "accuracy": found.grades.accuracy}
    return {
        "logged": found.logged,
        "scored": found.scored,
        "waiting": found.waiting,
        # A float ends at exp(709).
        "e_values": {name: math.exp(min(e.log_e, 700)) for name, e in evidence.items() if e},
        "verdict": found.grades.headline,
        "drift": found.drift,
    }
