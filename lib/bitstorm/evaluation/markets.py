"""Simulated markets on which the verdict's own error rates and power are measured.

A market has three regimes of volatility and shocks of Student's t with 4 degrees of freedom,
symmetric or skewed to the left (two pieces: C. Fernández and M. Steel, 1998). Without skill the
return is a shock alone, and the forecast is an autoregression fitted to the past and used after it.
With skill the return follows an autoregression of the stated R², and the forecast is its true
conditional mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitstorm.core.results import Result
from bitstorm.evaluation.skill_tests import known_volatility
from bitstorm.evaluation.verdict import Grades, judge

HOURS = (1_314, 8_760)
MODELS = ("no skill", "no skill, skewed", "R² 0.5 %", "R² 1 %", "R² 2 %")
_R_SQUARED = dict(zip(MODELS[2:], (0.005, 0.01, 0.02), strict=True))
_LONG = 24
RULES = (
    "informative",
    "more accurate",
    "more accurate, live",
    "worth its costs",
    f"more accurate, {_LONG} steps",
)
# Of the last hours of the past, which the forecast without skill is fitted to.
_PAST = 4_380
_LEVELS = np.array([0.003, 0.006, 0.012])
_MEAN_STAY = 168
_DEGREES = 4
_SKEW = 0.7

# Without skill each rule says yes at most this often; looked at every hour where it is an e-value.
_AT_MOST = dict(zip(RULES, (0.02, 0.05, 0.02, 0.02, 0.05), strict=True))
# And at R² 1 %, after these hours, at least this often.
_AT_LEAST = {
    ("informative", 1_314): 0.70,
    ("more accurate", 8_760): 0.95,
    ("more accurate, live", 8_760): 0.85,
}


@dataclass(frozen=True)
class Rate:
    """The share of simulated markets in which a rule says yes, after so many test hours."""

    rule: str
    model: str
    hours: int
    share: float
    standard_error: float

    @property
    def at_most(self) -> float | None:
        """The claim for a forecast without skill."""
        return None if self.model in _R_SQUARED else _AT_MOST[self.rule]

    @property
    def at_least(self) -> float | None:
        """The claim for a forecast with skill, where there is one."""
        return _AT_LEAST.get((self.rule, self.hours)) if self.model == "R² 1 %" else None

    def holds(self, markets: int, *, errors: float = 3.0) -> bool:
        """Whether the share keeps its claims, give or take so many standard errors of the claim:
        three, because many claims are tested at once."""
        low, high = self.at_least or 0.0, 1.0 if self.at_most is None else self.at_most
        slack = [errors * math.sqrt(claim * (1 - claim) / markets) for claim in (low, high)]
        return low - slack[0] <= self.share <= high + slack[1]


@dataclass(frozen=True, repr=False)
class Proof(Result):
    """The measured rates; `fee` in basis points per unit traded."""

    markets: int
    seed: int
    fee: float
    rates: tuple[Rate, ...]

    def facts(self) -> dict[str, Any]:
        """The rates in percent, with their standard errors."""
        shares = {
            f"{r.rule}; {r.model}; {r.hours:,} h": f"{100 * r.share:.1f} ± "
            f"{100 * r.standard_error:.1f} %"
            for r in self.rates
        }
        return {"markets": self.markets, "seed": self.seed, "fee": self.fee, **shares}

    @property
    def broken(self) -> tuple[Rate, ...]:
        """The rates that do not keep their claims."""
        return tuple(rate for rate in self.rates if not rate.holds(self.markets))

    def rate(self, rule: str, model: str, hours: int) -> Rate | None:
        """None where it is not measured: the longer horizon with skill."""
        wanted = (rule, model, hours)
        return next((r for r in self.rates if (r.rule, r.model, r.hours) == wanted), None)


def prove(
    markets: int = 1_000,
    *,
    seed: int = 1,
    fee: float = 10.0,
    hours: tuple[int, ...] = HOURS,
    progress: Callable[[int], None] = lambda done: None,
) -> Proof:
    """Apply `verdict.judge` to every market, and count how often each rule says yes.

    `hours` are test lengths, ascending. Market k depends on the seed and k alone. The e-values are
    looked at every hour, the test of Diebold and Mariano once at the end.
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for number in range(markets):
        for model in MODELS:
            for rule, end, yes in _answers(model, number, seed=seed, hours=hours, fee=fee):
                found[rule, model, end] += yes
        progress(number + 1)
    order = sorted(found, key=lambda key: (RULES.index(key[0]), key[2], MODELS.index(key[1])))
    rates = [_rate(*key, found[key] / markets, markets) for key in order]
    return Proof(markets, seed, fee, tuple(rates))


def _rate(rule: str, model: str, hours: int, share: float, markets: int) -> Rate:
    return Rate(rule, model, hours, share, math.sqrt(share * (1 - share) / markets))


# The shares in percent that `prove()` gives, by rule; for each of MODELS after each of HOURS.
_MEASURED: dict[str, tuple[float, ...]] = {
    "informative": (0.0, 0.4, 0.0, 0.6, 42.6, 99.9, 75.2, 100.0, 96.8, 100.0),
    "more accurate": (3.1, 1.5, 3.2, 1.0, 33.2, 90.2, 46.3, 99.6, 72.0, 100.0),
    "more accurate, live": (0.0, 0.0, 0.0, 0.1, 7.0, 69.2, 24.2, 93.7, 44.6, 99.9),
    "worth its costs": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 3.2, 0.5),
    "more accurate, 24 steps": (3.8, 2.8, 4.1, 2.0),
}


def measured() -> Proof:
    """What `prove()` gives, without its half a minute; a test holds both equal."""
    rates = [
        _rate(rule, model, hours, shares[2 * place + late] / 100, 1_000)
        for rule, shares in _MEASURED.items()
        for late, hours in enumerate(HOURS)
        for place, model in enumerate(MODELS[: len(shares) // 2])
    ]
    return Proof(1_000, 1, 10.0, tuple(rates))


def _answers(
    model: str, number: int, *, seed: int, hours: Sequence[int], fee: float
) -> Iterator[tuple[str, int, bool]]:
    """What each rule says of a market after each of `hours`."""
    random = np.random.default_rng([seed, MODELS.index(model), number])
    skewed = model == "no skill, skewed" or (model in _R_SQUARED and number % 2 == 1)
    r_squared = _R_SQUARED.get(model, 0.0)
    returns = _returns(random, _PAST + hours[-1], skewed=skewed, r_squared=r_squared)
    for horizon in (1,) if r_squared else (1, _LONG):
        outcomes = _sums(returns, horizon)
        before = np.concatenate([np.full(horizon, np.nan), outcomes[:-horizon]])
        slope = math.sqrt(r_squared) if r_squared else _slope(before[:_PAST], outcomes[:_PAST])
        volatility = known_volatility(returns, horizon=horizon)
        for end in hours:
            tested = slice(_PAST, _PAST + end)
            grades = judge(
                outcomes=outcomes[tested],
                forecasts=slope * before[tested],
                volatility=volatility[tested],
                horizon=horizon,
                frequency="1h",
                data=model,
                fee=fee,
            )
            said = _said(grades) if horizon == 1 else {RULES[4]: grades.more_accurate}
            yield from ((rule, end, bool(yes)) for rule, yes in said.items())


def _said(grades: Grades) -> dict[str, bool | None]:
    live = replace(grades, live=True).more_accurate
    said = (grades.informative, grades.more_accurate, live, grades.worth_its_costs)
    return dict(zip(RULES, said, strict=False))


def _returns(
    random: np.random.Generator, hours: int, *, skewed: bool, r_squared: float
) -> np.ndarray:
    """Log returns of one hour, float64 (hours,)."""
    from scipy import signal

    begins = random.random(hours) < 1 / _MEAN_STAY
    regimes = random.integers(len(_LEVELS), size=hours)
    since = np.maximum.accumulate(np.where(begins, np.arange(hours), 0))
    shocks = random.standard_t(_DEGREES, hours)
    variance = _DEGREES / (_DEGREES - 2)
    if skewed:
        right = random.random(hours) < _SKEW**2 / (1 + _SKEW**2)
        mean = _SKEW - 1 / _SKEW  # the mean of |t| is 1 for 4 degrees
        shocks = np.abs(shocks) * np.where(right, _SKEW, -1 / _SKEW) - mean
        variance = variance * (_SKEW**3 + _SKEW**-3) / (_SKEW + 1 / _SKEW) - mean**2
    noise = _LEVELS[regimes[since]] * shocks / math.sqrt(variance)
    return np.asarray(signal.lfilter([1.0], [1.0, -math.sqrt(r_squared)], noise))


def _sums(returns: np.ndarray, horizon: int) -> np.ndarray:
    """The sum of the last `horizon` returns, NaN before there are so many."""
    total = np.cumsum(np.concatenate([[0.0], returns]))
    return np.concatenate([np.full(horizon - 1, np.nan), total[horizon:] - total[:-horizon]])


def _slope(before: np.ndarray, outcomes: np.ndarray) -> float:
    """Least squares through the origin."""
    known = np.isfinite(before) & np.isfinite(outcomes)
    x, y = before[known], outcomes[known]
    return float(x @ y) / float(x @ x)
