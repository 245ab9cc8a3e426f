"""The log of forecasts: its rows, the rule that seals them, and their score against the outcomes.

The score is a function of the log and of the prices alone: it can be computed again at any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.core.results import Result
from bitstorm.core.schema import FORECASTS, LEVELS
from bitstorm.core.time import iso
from bitstorm.evaluation import comparison, skill_tests, verdict
from bitstorm.evaluation.verdict import Grades
from bitstorm.store.seal import arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# The newest outcomes, which `drift` compares with all before them: a week of hours.
RECENT = 168
# Two means that are further apart, in standard errors, have drifted.
_APART = 3.0


@dataclass(frozen=True)
class Made:
    """By which run, from which snapshot of the indicators, and when a forecast is made: the clock,
    and the time of the newest price in the store (ms UTC)."""

    run: str
    indicators: str
    digest: str
    made_at: int
    known_until: int


def to_rows(
    made: Made,
    *,
    origin: int,
    origin_price: float,
    log_returns: np.ndarray,
    bounds: np.ndarray,
    step_ms: int,
) -> pa.Table:
    """A forecast as rows of FORECASTS.

    `origin` is the time of the newest point (ms UTC), `origin_price` its price (USD), `log_returns`
    float64 (steps,) from there to each step, `bounds` float64 (steps, levels, 2) the lower and
    upper ends of the intervals of LEVELS (USD), NaN for none.
    """
    import pyarrow as pa

    steps = np.arange(1, len(log_returns) + 1)
    columns: dict[str, Any] = {
        "timestamp": origin + steps * step_ms,
        "step": steps.astype(np.int32),
        "origin_price": np.full(len(steps), origin_price, np.float32),
        "forecast": origin_price * np.exp(log_returns),
    }
    for place, level in enumerate(LEVELS):
        for end, name in enumerate((f"lower_{level}", f"upper_{level}")):
            columns[name] = pa.array(bounds[:, place, end], from_pandas=True)
    same = {"origin": origin, **vars(made)}
    columns |= {name: [value] * len(steps) for name, value in same.items()}
    schema = arrow_schema(FORECASTS)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def only_sealed(rows: pa.Table, *, by_clock: bool) -> pa.Table:
    """The rows whose outcome is later than all that is known: than the newest price in the store
    and, `by_clock`, than the time at which they are made."""
    known = rows.column("known_until").to_numpy()
    if by_clock:
        known = np.maximum(known, rows.column("made_at").to_numpy())
    return rows.filter(rows.column("timestamp").to_numpy() > known)


@dataclass(frozen=True)
class StepErrors:
    """Root mean squared errors of log returns, over the `scored` forecasts of one step."""

    step: int
    scored: int
    rmse: float
    rmse_persistence: float
    skill: float


@dataclass(frozen=True)
class Coverage:
    """The share of `scored` outcomes that the interval held; `level` in percent."""

    level: int
    scored: int
    share: float


@dataclass(frozen=True, repr=False)
class Score(Result):
    """The forecasts of one run (None: of all runs, the first forecast of each outcome and step).

    `waiting` outcomes are later than the newest point; `unobserved` ones have no observed price.
    `grades` are of step 1; `drift` has a sentence for each change of the newest outcomes.
    """

    run: str | None
    logged: int
    scored: int
    waiting: int
    unobserved: int
    steps: tuple[StepErrors, ...]
    coverage: tuple[Coverage, ...]
    grades: Grades
    drift: tuple[str, ...]


@dataclass(frozen=True)
class Outcomes:
    """Where a score finds outcomes: prices on the grid, float64 (n,), NaN where none is observed;
    the first one's time and the step in ms; the step and the source in words."""

    first_ms: int
    prices: np.ndarray
    step_ms: int
    frequency: str
    source: str


def score(log: pd.DataFrame, outcomes: Outcomes, *, fee: float) -> tuple[Score, ...]:
    """The score of all runs together, then of each run, the newest first. `log` has the columns of
    FORECASTS; `fee` as in `verdict.judge`."""
    known = with_outcomes(log, outcomes)
    first = known.sort_values(["timestamp", "step", "made_at", "run"])
    parts: Mapping[str | None, pd.DataFrame] = {
        None: first.drop_duplicates(["timestamp", "step"]),
        **dict(reversed(list(known.groupby("run")))),
    }
    return tuple(_score(run, rows, outcomes, fee) for run, rows in parts.items())


def with_outcomes(log: pd.DataFrame, outcomes: Outcomes) -> pd.DataFrame:
    """The log in the order of time, with `actual` (USD), `outcome` and `value` (log returns from
    the origin to price and forecast) and `volatility` (of one step, known before)."""
    log = log.sort_values(["timestamp", "step", "run"], ignore_index=True)
    place, rest = np.divmod(log["timestamp"].to_numpy() - outcomes.first_ms, outcomes.step_ms)
    fits = log["timestamp"] - log["origin"] == log["step"].astype(np.int64) * outcomes.step_ms
    inside = (place >= 0) & (place < len(outcomes.prices)) & (rest == 0) & fits.to_numpy()

    def looked_up(series: np.ndarray) -> np.ndarray:
        found = np.full(len(place), np.nan)
        found[inside] = series[place[inside]]
        return found

    returns = np.diff(np.log(outcomes.prices), prepend=np.nan)
    actual, origin = looked_up(outcomes.prices), log["origin_price"].astype(np.float64)
    return log.assign(
        actual=actual,
        outcome=np.log(actual / origin),
        value=np.log(log["forecast"] / origin),
        volatility=looked_up(skill_tests.known_volatility(returns)),
        waiting=place >= len(outcomes.prices),
    )


def _score(run: str | None, rows: pd.DataFrame, outcomes: Outcomes, fee: float) -> Score:
    known = rows[rows["actual"].notna()]
    ahead = known[known["step"] == 1]
    waiting = int(rows["waiting"].sum())
    span = "no outcome yet"
    if len(ahead):
        span = " to ".join(iso(int(time)) for time in ahead["timestamp"].iloc[[0, -1]])
    return Score(
        run=run,
        logged=len(rows),
        scored=len(known),
        waiting=waiting,
        unobserved=len(rows) - len(known) - waiting,
        steps=tuple(_errors(int(step), part) for step, part in known.groupby("step")),
        coverage=tuple(found for level in LEVELS if (found := _coverage(level, known))),
        grades=verdict.judge(
            outcomes=ahead["outcome"].to_numpy(),
            forecasts=ahead["value"].to_numpy(),
            volatility=ahead["volatility"].to_numpy(),
            horizon=1,
            frequency=outcomes.frequency,
            data=f"{outcomes.source}; {span}",
            fee=fee,
            live=True,
        ),
        drift=_drift(ahead),
    )


def _errors(step: int, rows: pd.DataFrame) -> StepErrors:
    actual, origin = rows["actual"].to_numpy(), rows["origin_price"].to_numpy(np.float64)
    ours, theirs = (
        comparison.errors(forecast=forecast, actual=actual, origin=origin).rmse_log_return
        for forecast in (rows["forecast"].to_numpy(), origin)
    )
    return StepErrors(step, len(rows), ours, theirs, comparison.skill_score(ours, theirs))


def _held(level: int, rows: pd.DataFrame) -> np.ndarray:
    """Whether the interval held each outcome, float64 (n,); rows without an interval are left
    out."""
    rows = rows[rows[f"lower_{level}"].notna() & rows[f"upper_{level}"].notna()]
    held = rows["actual"].between(rows[f"lower_{level}"], rows[f"upper_{level}"])
    return held.to_numpy(np.float64)


def _coverage(level: int, rows: pd.DataFrame) -> Coverage | None:
    held = _held(level, rows)
    return Coverage(level, len(held), float(held.mean())) if len(held) else None


def _drift(rows: pd.DataFrame) -> tuple[str, ...]:
    """A sentence for each mean over the newest RECENT outcomes that is more than 3 standard errors
    from the mean over those before, of which there must be as many. A hint, and no test."""
    z, g = (
        skill_tests.standardised(rows[name].to_numpy(), rows["volatility"].to_numpy())
        for name in ("outcome", "value")
    )
    gains = skill_tests.accuracy_gains(z, g)
    means = {
        **{f"the share that the {level} % interval holds": _held(level, rows) for level in LEVELS},
        "the squared error saved, in variances,": gains[np.isfinite(gains)],
    }
    found = []
    for what, values in means.items():
        before, recent = values[:-RECENT], values[-RECENT:]
        if len(before) < RECENT:
            continue
        noise = math.sqrt(before.var(ddof=1) / len(before) + recent.var(ddof=1) / RECENT)
        if abs(recent.mean() - before.mean()) > _APART * noise:
            found.append(
                f"{what} is {recent.mean():.3f} over the last {RECENT} outcomes, and "
                f"{before.mean():.3f} over the {len(before):,} before"
            )
    return tuple(found)
