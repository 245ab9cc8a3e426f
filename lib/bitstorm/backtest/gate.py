"""The gate: which run `forecast` uses.

A new run is the challenger of the champion, the newest promoted run. It is promoted when, on the
test part of both, its errors are not shown to be larger than the errors of persistence and of the
champion. The test is Diebold and Mariano's for the weighted, clipped loss of the verdict, one-sided
at 5 % (`evaluation/skill_tests`). The decision is made once and kept in the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.backtest.outlook import Choice
from bitstorm.backtest.scores import PERSISTENCE
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.time import iso, now_ms
from bitstorm.evaluation import skill_tests
from bitstorm.evaluation.verdict import LEAST_INDEPENDENT, P_NEEDED, Grades, judge
from bitstorm.model import runs
from bitstorm.model.forecast import Forecasts
from bitstorm.model.runs import Run
from bitstorm.model.series import Series

DECISION = "gate.json"


@dataclass(frozen=True)
class Match:
    """The challenger against a `rival` on `count` common forecasts: `t` is Diebold and Mariano's
    (above zero the challenger is better), `p_worse` is one-sided, for "the challenger is worse"."""

    rival: str
    count: int
    t: float
    p_worse: float

    @property
    def lost(self) -> bool:
        return self.p_worse <= P_NEEDED


@dataclass(frozen=True)
class Decision:
    """Whether a run is promoted, and why, in one sentence."""

    run: str
    promoted: bool
    why: str
    indicators: str
    decided_at: str
    matches: tuple[Match, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        matches = tuple(Match(**match) for match in values["matches"])
        return cls(**{**values, "matches": matches})


def decide_on(
    challenger: Forecasts, champion: Forecasts | None, series: Series, *, indicators: str
) -> Decision:
    """The decision on a run that has none, after its matches with persistence and the champion on
    the outcomes that all of them forecast."""
    horizon, ours = challenger.settings.horizon, with_volatility(challenger, series)
    matches = [match(PERSISTENCE, ours, pd.Series(0.0, ours.index), horizon=horizon)]
    if champion is not None:
        theirs = champion.log_returns()["forecast"]
        matches.append(match(f"run {champion.run.name}", ours, theirs, horizon=horizon))
    name = challenger.run.name
    return decide(
        name, tuple(matches), horizon=horizon, indicators=indicators, decided_at=iso(now_ms())
    )


def with_volatility(found: Forecasts, series: Series) -> pd.DataFrame:
    """`Forecasts.log_returns` with the `volatility` known when each forecast was made; NaN before
    the series."""
    rows = found.log_returns()
    known = skill_tests.known_volatility(series.returns, horizon=found.settings.horizon)
    places = series.places(rows.index.to_numpy())
    return rows.assign(volatility=np.where(places < 0, np.nan, known[places]))


def grades_of(found: Forecasts, series: Series, *, data: str, fee: float) -> Grades:
    """The verdict on a run's test part; `data` names its source, `fee` is in basis points."""
    rows = with_volatility(found, series)
    first, last = (iso(int(rows.index[place])) for place in (0, -1))
    return judge(
        outcomes=rows["actual"].to_numpy(),
        forecasts=rows["forecast"].to_numpy(),
        volatility=rows["volatility"].to_numpy(),
        horizon=found.settings.horizon,
        frequency=found.run.record["frequency"],
        data=f"{data}, {first} to {last}",
        fee=fee,
    )


def match(rival: str, challenger: pd.DataFrame, other: pd.Series, *, horizon: int) -> Match:
    """The challenger against another forecast of the same outcomes.

    `challenger` has, by outcome time in order, the log returns `actual` and `forecast` and the
    `volatility` known when the forecast was made; `other` is the rival's, by the same index. Rows
    that either lacks are left out.
    """
    both = challenger.assign(other=other).dropna()
    sigma = both["volatility"].to_numpy()
    z, ours, theirs = (
        skill_tests.standardised(both[name].to_numpy(), sigma)
        for name in ("actual", "forecast", "other")
    )
    gains = (z - theirs) ** 2 - (z - ours) ** 2
    if len(gains) <= horizon:
        return Match(rival, len(gains), 0.0, 1.0)
    test = skill_tests.diebold_mariano(gains, horizon=horizon)
    return Match(rival, len(gains), test.t, 1 - test.p)


def decide(
    run: str, matches: tuple[Match, ...], *, horizon: int, indicators: str, decided_at: str
) -> Decision:
    """The decision on a run after its matches with persistence and, where there is one, with the
    champion."""
    lost = next((one for one in matches if one.lost), None)
    few = next((one for one in matches if one.count // horizon < LEAST_INDEPENDENT), None)
    if few is not None:
        why = (
            f"not promoted: {few.count // horizon} forecasts that do not overlap are too few to "
            f"compare with {few.rival}, expected at least {LEAST_INDEPENDENT}"
        )
    elif lost is not None:
        why = (
            f"not promoted: less accurate than {lost.rival} on {lost.count:,} forecasts "
            f"(t = {lost.t:+.2f})"
        )
    else:
        rivals = " and ".join(f"{one.rival} (t = {one.t:+.2f})" for one in matches)
        why = f"promoted: not less accurate than {rivals}"
    return Decision(run, few is None and lost is None, why, indicators, decided_at, matches)


def keep(folder: Path, decision: Decision) -> None:
    """Write the decision into the run's folder, durably."""
    text = json.dumps(asdict(decision), indent=2) + "\n"
    durable_io.replace(folder / DECISION, text.encode())


def decision_on(run: Run) -> Decision | None:
    """The decision on a run; None before it is made. Raises ModelError where it cannot be read."""
    path = run.folder / DECISION
    try:
        return Decision.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}): delete it, and `bitstorm forecast` decides again"
        ) from None


def champion_of(checkpoints: Path, *, but: str) -> Run | None:
    """The newest promoted run, apart from the one named."""
    for name, run in runs.all_runs(checkpoints):
        if isinstance(run, Run) and name != but and run.state == runs.FINISHED:
            decision = decision_on(run)
            if decision is not None and decision.promoted:
                return run
    return None


def choose(
    newest: Run,
    checkpoints: Path,
    *,
    load: Callable[[Run], Forecasts],
    baseline: Callable[[], Choice],
    series: Series,
    indicators: str,
) -> tuple[Forecasts, Choice]:
    """The run to report, and the model that forecasts the next steps: the newest run where it is
    promoted, else the champion, else a baseline beside the newest run.

    Decides on the newest run where no decision is there. `load` gives the forecasts of a run.
    """
    champion = champion_of(checkpoints, but=newest.name)
    decision, found, rival = decision_on(newest), None, None
    if decision is None:
        found = load(newest)
        with suppress(ModelError, DataError):  # a champion of other indicators is no rival
            rival = None if champion is None else load(champion)
        decision = decide_on(found, rival, series, indicators=indicators)
        keep(newest.folder, decision)
    if decision.promoted:
        return found or load(newest), Choice(newest.name, decision.why)
    if champion is not None:
        with suppress(ModelError, DataError):
            why = f"the champion; run {newest.name} was {decision.why}"
            return rival or load(champion), Choice(champion.name, why)
    best = baseline()
    why = f"{best.why}; run {newest.name} was {decision.why}"
    return found or load(newest), Choice(best.model, why)
