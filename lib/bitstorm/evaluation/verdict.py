"""The verdict: is a forecast informative, more accurate than persistence, worth its costs?

Each grade has an error rate of at most 5 %, which `evaluation/markets.py` measures. The tests and
their formulas are in `evaluation/skill_tests.py`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bitstorm.evaluation import skill_tests
from bitstorm.evaluation.skill_tests import DieboldMariano, Evidence, Trading

# An e-value that without skill is ever reached in at most 5 % of cases.
E_NEEDED = 20.0
P_NEEDED = 0.05
# With fewer forecasts that do not overlap, Student's t does not fit.
LEAST_INDEPENDENT = 30
_PERSISTENCE = "'the price stays as it is'"
_ANY_TIME = "Error rate: at most 5 %, even when looked at after every outcome."
_ONCE = "Error rate: 5 %, looked at once, at an end fixed before."


@dataclass(frozen=True)
class Grades:
    """The three grades of the forecasts `horizon` steps ahead, and every number behind them.

    `count` forecasts were judged, of the `data` named by the caller. `r2` is 1 - Σ(r - f)²/Σr²,
    `r2_weighted` the same of clipped r/σ and f/σ. `test` is for that weighted loss, None for few
    forecasts. `information` and `accuracy` are the e-values, None for horizons above 1, where
    outcomes overlap. `fee` is in basis points per unit traded. `live`: looked at again and again,
    so that the e-value decides on accuracy and not the test, which holds for one look only.
    """

    data: str
    frequency: str
    horizon: int
    count: int
    fee: float
    live: bool
    r2: float
    r2_weighted: float
    test: DieboldMariano | None
    information: Evidence | None
    accuracy: Evidence | None
    trading: Trading | None

    @property
    def independent(self) -> int:
        """The number of forecasts that do not overlap."""
        return self.count // self.horizon

    @property
    def informative(self) -> bool | None:
        """None where it is not judged: too few forecasts, or a horizon above 1."""
        return None if self.test is None else _reached(self.information)

    @property
    def more_accurate(self) -> bool | None:
        """None where it is not judged: too few forecasts, or live with a horizon above 1."""
        if self.test is None:
            return None
        return _reached(self.accuracy) if self.live else self.test.p <= P_NEEDED

    @property
    def less_accurate(self) -> bool:
        """Persistence is more accurate, by the same test; never said live."""
        return not self.live and self.test is not None and self.test.p >= 1 - P_NEEDED

    @property
    def worth_its_costs(self) -> bool | None:
        """Informative, and the whole 90 % interval of its break-even cost is above the fee. None
        where `informative` is None."""
        if not self.informative:
            return self.informative
        return self.trading is not None and self.trading.lower > self.fee

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        of = f"{self.count:,} forecasts {self.horizon} × {self.frequency} ahead"
        if self.test is None:
            return (
                f"Too few forecasts to judge: found {self.independent} that do not overlap ({of}), "
                f"expected at least {LEAST_INDEPENDENT}."
            )
        if self.informative is None and self.more_accurate is None:
            return f"Not judged: no test of overlapping outcomes may be looked at often ({of})."
        accuracy = f"not shown to be more accurate than {_PERSISTENCE}"
        if self.more_accurate or self.less_accurate:
            accuracy = f"{'more' if self.more_accurate else 'less'} accurate than {_PERSISTENCE}"
        if self.worth_its_costs:
            return f"Worth something: informative, {accuracy}, and it {self._break_even} ({of})."
        if self.informative:
            never = self.trading is None or self.trading.upper <= self.fee
            worth = "not worth its costs" if never else "not shown to be worth its costs"
            return f"Informative, {accuracy}, {worth}: it {self._break_even} ({of})."
        if self.more_accurate:
            rest = "not shown to be informative or worth its costs"
            if self.informative is None:
                rest = "whether it is informative or worth its costs is not judged"
            return f"{accuracy.capitalize()}; {rest} ({of})."
        if self.less_accurate:
            return f"{accuracy.capitalize()}: do not use this forecast ({of})."
        return f"No proven worth: not distinguishable from {_PERSISTENCE} ({of})."

    @property
    def details(self) -> dict[str, str]:
        """What stands behind each grade: its loss, its numbers and its error rate; and the data."""
        return {
            "informative": self._information(),
            "more accurate": self._accuracy(),
            "worth its costs": self._costs(),
            "data": self._data(),
        }

    def to_json(self) -> dict[str, Any]:
        """Every number, the grades and the sentences."""
        names = ("informative", "more_accurate", "less_accurate", "worth_its_costs")
        derived = {name: getattr(self, name) for name in (*names, "headline", "details")}
        return {**asdict(self), **derived}

    def _information(self) -> str:
        if self.information is None:
            return (
                "Not judged: outcomes more than 1 step ahead overlap, the test needs separate ones."
            )
        return (
            f"{_answer(self.informative)}. Do returns go in the forecast's direction (returns in "
            f"units of their volatility, clipped)? {_evidence_text(self.information)} {_ANY_TIME}"
        )

    def _accuracy(self) -> str:
        loss = (
            "Loss: squared error in units of the volatility, clipped; R² "
            f"{_percent(self.r2_weighted)}."
        )
        if self.live and self.accuracy is None:
            return f"Not judged: no test of overlapping outcomes may be looked at often. {loss}"
        if self.live and self.accuracy is not None:
            test = f"{_evidence_text(self.accuracy)} {_ANY_TIME}"
        elif self.test is None:
            test = "Too few forecasts to test."
        else:
            test = (
                "Test: Diebold-Mariano, corrected by Harvey, Leybourne and Newbold; t = "
                f"{self.test.t:+.2f}, one-sided p = {self.test.p:.3f}, {P_NEEDED:g} needed. {_ONCE}"
            )
        return f"{_answer(self.more_accurate)}. {loss} {test}"

    def _costs(self) -> str:
        answer = _answer(self.worth_its_costs)
        if self.trading is None:
            return f"{answer}. No forecast has a direction to act on."
        return (
            f"{answer}. Acting on the forecast's sign {self._break_even}; "
            f"{self.trading.turnover:.2f} units are traded a step. The forecast must be "
            f"informative, and the interval above the fee. {_ONCE}"
        )

    @property
    def _break_even(self) -> str:
        if self.trading is None:
            return "never trades"
        return (
            f"breaks even at {self.trading.break_even:.1f} basis points per unit traded (90 % "
            f"interval {self.trading.lower:.1f} to {self.trading.upper:.1f}), the fee is "
            f"{self.fee:g}"
        )

    def _data(self) -> str:
        return (
            f"{self.data}; {self.count:,} forecasts {self.horizon} × {self.frequency} ahead, "
            f"compared with {_PERSISTENCE}. Without weights, in squared log return, R² is "
            f"{_percent(self.r2)}."
        )


def judge(
    *,
    outcomes: np.ndarray,
    forecasts: np.ndarray,
    volatility: np.ndarray,
    horizon: int,
    frequency: str,
    data: str,
    fee: float,
    live: bool = False,
) -> Grades:
    """The grades of forecasts in order of time.

    Args:
        outcomes: float64 (n,), the log return of `horizon` steps that each forecast is about.
        forecasts: float64 (n,), log returns.
        volatility: float64 (n,), of `skill_tests.known_volatility` at the same steps.
        horizon: Steps ahead.
        frequency: The step in words, such as `1h`.
        data: Source and span of the forecasts in words.
        fee: The user's cost of a trade, in basis points per unit traded.
        live: Looked at again and again, and not once at an end that was fixed before.

    Rows with a NaN are left out.
    """
    known = np.isfinite(outcomes) & np.isfinite(forecasts) & np.isfinite(volatility)
    outcomes, forecasts, volatility = outcomes[known], forecasts[known], volatility[known]
    z = skill_tests.standardised(outcomes, volatility)
    g = skill_tests.standardised(forecasts, volatility)
    test = information = accuracy = None
    if len(z) // horizon >= LEAST_INDEPENDENT:
        test = skill_tests.diebold_mariano(skill_tests.accuracy_gains(z, g), horizon=horizon)
    if horizon == 1:
        _, information = skill_tests.e_information(z, g)
        _, accuracy = skill_tests.e_accuracy(z, g)
    return Grades(
        data, frequency, horizon, len(z), fee, live,
        r2=skill_tests.r_squared(outcomes, forecasts),
        r2_weighted=skill_tests.r_squared(z, g),
        test=test, information=information, accuracy=accuracy,
        trading=skill_tests.trade_on_signs(outcomes, forecasts, horizon=horizon),
    )  # fmt: skip


def _reached(evidence: Evidence | None) -> bool | None:
    return None if evidence is None else evidence.largest >= math.log(E_NEEDED)


def _answer(grade: bool | None) -> str:
    return "Not judged" if grade is None else "Yes" if grade else "No"


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"


def _evidence_text(evidence: Evidence) -> str:
    now, largest = (_e_text(log) for log in (evidence.log_e, evidence.largest))
    return f"The e-value is {now}, its largest was {largest}, {E_NEEDED:g} needed."


def _e_text(log_e: float) -> str:
    decades = log_e / math.log(10)
    return f"{math.exp(log_e):.3g}" if abs(decades) < 4 else f"10^{decades:.0f}"
