"""The gate: which run `forecast` uses.

A new run is the challenger of the champion, the newest promoted run. It is promoted when, on the
test part of both, its errors are not shown to be larger than the errors of persistence and of the
champion. The test is Diebold and Mariano's for the weighted, clipped loss of the verdict, one-sided
at 5 % (`evaluation/skill_tests`). The decision is made once and kept in the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError
from bitstorm.evaluation import skill_tests
from bitstorm.evaluation.verdict import LEAST_INDEPENDENT, P_NEEDED
from bitstorm.model import runs
from bitstorm.model.runs import Run

DECISION = "gate.json"
PERSISTENCE = "persistence"


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
    t = float(skill_tests.diebold_mariano(gains, horizon=horizon)) if len(gains) > 1 else 0.0
    p = float(skill_tests.p_value(-t, count=len(gains))) if len(gains) > 1 else 1.0
    return Match(rival, len(gains), t, p)


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


def known_volatility_at(
    prices: np.ndarray, outcomes: np.ndarray, *, horizon: int
) -> np.ndarray:
    """The volatility known before the outcomes at these places of the grid; float64 (n,).

    `prices` float64 (points,), USD, NaN where the grid has a hole; `outcomes` int64 (n,).
    """
    returns = np.diff(np.log(prices), prepend=np.nan)
    return skill_tests.known_volatility(returns, horizon=horizon)[outcomes]
