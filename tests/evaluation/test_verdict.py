"""The grades: each from its own rule, and the sentences that say so."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from bitstorm.evaluation import skill_tests
from bitstorm.evaluation.skill_tests import DieboldMariano, Evidence, Trading
from bitstorm.evaluation.verdict import Grades, judge

NOW = math.log(2.0)


def grades(
    *, e: float = 1.0, p: float = 0.5, lower: float = -5.0, upper: float = 5.0, **others: Any
) -> Grades:
    """Grades of 1,000 forecasts, as their tests came out."""
    fields: dict[str, Any] = {
        "data": "Coinbase BTC-USD, May 2018",
        "frequency": "1h",
        "horizon": 1,
        "count": 1_000,
        "fee": 10.0,
        "live": False,
        "r2": -0.0002,
        "r2_weighted": 0.0031,
        "test": DieboldMariano(1.0, p),
        "information": Evidence(NOW, math.log(e)),
        "accuracy": Evidence(NOW, math.log(e)),
        "trading": Trading(1e-4, 0.5, (lower + upper) / 2, lower, upper),
    }
    return Grades(**{**fields, **others})


def said(found: Grades) -> tuple[bool | None, ...]:
    return (found.informative, found.more_accurate, found.worth_its_costs)


OVERLAP: dict[str, Any] = {"horizon": 24, "information": None, "accuracy": None}
FEW: dict[str, Any] = {"count": 29, "test": None}


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (grades(), (False, False, False), "No proven worth: not distinguishable"),
        (grades(e=20), (True, False, False), "Informative, not shown to be more accurate"),
        (grades(e=20, lower=11, upper=15), (True, False, True), "Worth something: informative, "),
        (grades(e=20, lower=9, upper=15), (True, False, False), "not shown to be worth its costs"),
        (grades(e=20, lower=9, upper=10), (True, False, False), "not worth its costs: it breaks"),
        (grades(e=20, trading=None), (True, False, False), "not worth its costs: it never trades"),
        (grades(e=19.9, lower=11, upper=15), (False, False, False), "No proven worth"),
        (grades(p=0.05), (False, True, False), "More accurate than 'the price stays as it is'"),
        (grades(p=0.051), (False, False, False), "No proven worth"),
        (grades(p=0.05, e=20), (True, True, False), "Informative, more accurate than"),
        (grades(p=0.95), (False, False, False), "Less accurate than"),
        (grades(p=0.95, e=20), (True, False, False), "Informative, less accurate than"),
        (grades(p=0.949), (False, False, False), "No proven worth"),
        (grades(live=True, p=0.01), (False, False, False), "No proven worth"),
        (grades(live=True, p=0.99), (False, False, False), "No proven worth"),
        (grades(live=True, e=20), (True, True, False), "Informative, more accurate than"),
        (grades(p=0.01, **OVERLAP), (None, True, None), "or worth its costs is not judged"),
        (grades(p=0.01, live=True, **OVERLAP), (None, None, None), "Not judged: no test"),
        (grades(e=1e9, **FEW), (None, None, None), "Too few forecasts to judge: found 29 that"),
    ],
)  # fmt: skip
def test_each_grade_has_its_rule(found, expected, words):
    assert said(found) == expected
    assert words in found.headline
    assert "\n" not in found.headline and found.headline.endswith(".")


def test_the_sentences_name_what_stands_behind_them():
    found = grades(e=45.0, p=0.123, lower=1.25, upper=6.75)
    assert found.details == {
        "informative": (
            "Yes. Do returns go in the forecast's direction (returns in units of their volatility, "
            "clipped)? The e-value is 2, its largest was 45, 20 needed. Error rate: at most 5 %, "
            "even when looked at after every outcome."
        ),
        "more accurate": (
            "No. Loss: squared error in units of the volatility, clipped; R² +0.31 %. Test: "
            "Diebold-Mariano, corrected by Harvey, Leybourne and Newbold; t = +1.00, one-sided "
            "p = 0.123, 0.05 needed. Error rate: 5 %, looked at once, at an end fixed before."
        ),
        "worth its costs": (
            "No. Acting on the forecast's sign breaks even at 4.0 basis points per unit traded "
            "(90 % interval 1.2 to 6.8), the fee is 10; 0.50 units are traded a step. The forecast "
            "must be informative, and the interval above the fee. Error rate: 5 %, looked at once, "
            "at an end fixed before."
        ),
        "data": (
            "Coinbase BTC-USD, May 2018; 1,000 forecasts 1 × 1h ahead, compared with 'the price "
            "stays as it is'. Without weights, in squared log return, R² is -0.02 %."
        ),
    }


def test_a_very_large_e_value_is_a_power_of_ten():
    assert (
        "its largest was 10^1234, 20"
        in grades(information=Evidence(0.0, 1234 * math.log(10))).details["informative"]
    )


@pytest.mark.parametrize(
    ("found", "name", "words"),
    [
        (grades(**OVERLAP), "informative", "Not judged: outcomes more than 1 step ahead overlap"),
        (grades(live=True, **OVERLAP), "more accurate", "Not judged: no test of overlapping"),
        (grades(live=True), "more accurate", "The e-value is 2, its largest was 1, 20 needed."),
        (grades(**FEW), "more accurate", "Too few forecasts to test."),
        (grades(trading=None), "worth its costs", "No forecast has a direction to act on."),
    ],
)
def test_what_is_not_judged_is_said(found, name, words):
    assert words in found.details[name]


def market(n: int, *, r_squared: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns of an autoregression, and their true conditional mean."""
    shocks = 0.006 * np.random.default_rng(seed).standard_t(5, n)
    returns, mean = np.zeros(n), np.zeros(n)
    for t in range(1, n):
        mean[t] = math.sqrt(r_squared) * returns[t - 1]
        returns[t] = mean[t] + shocks[t]
    return returns, mean


def judged(returns: np.ndarray, forecasts: np.ndarray, **others: Any) -> Grades:
    given: dict[str, Any] = {"horizon": 1, "frequency": "1h", "data": "simulated", "fee": 10.0}
    return judge(
        outcomes=returns,
        forecasts=forecasts,
        volatility=skill_tests.known_volatility(returns),
        **{**given, **others},
    )


def test_judge_applies_the_tests_to_weighted_clipped_values():
    returns, forecasts = market(800, r_squared=0.05)
    returns[[100, 101, 400]] = np.nan
    forecasts[[200, 401]] = np.nan
    found = judged(returns, forecasts)
    volatility = skill_tests.known_volatility(returns)
    rows = [t for t in range(24, 800) if t not in (100, 101, 400, 200, 401)]
    rows = [t for t in rows if not math.isnan(volatility[t])]
    z = np.array([min(5.0, max(-5.0, returns[t] / volatility[t])) for t in rows])
    g = np.array([min(5.0, max(-5.0, forecasts[t] / volatility[t])) for t in rows])
    assert found.count == len(rows) == 800 - 24 - 5
    assert found.r2_weighted == pytest.approx(1 - sum((z - g) ** 2) / sum(z**2), rel=1e-9)
    kept, meant = returns[rows], forecasts[rows]
    assert found.r2 == pytest.approx(1 - sum((kept - meant) ** 2) / sum(kept**2), rel=1e-9)
    # For a horizon of 1: mean over standard error, and the correction (n - 1)/n under the root.
    saved = z**2 - (z - g) ** 2
    t = saved.mean() / saved.std() * math.sqrt(len(z) - 1)
    assert found.test is not None
    assert found.test.t == pytest.approx(t, rel=1e-9)
    assert found.information == skill_tests.e_information(z, g)[1]
    assert found.accuracy == skill_tests.e_accuracy(z, g)[1]
    assert found.trading == skill_tests.trade_on_signs(kept, meant, horizon=1)


def test_strong_and_absent_skill_are_told_apart():
    returns, mean = market(4_000, r_squared=0.3)
    assert said(judged(returns, mean)) == (True, True, True)
    assert said(judged(returns, mean, fee=1e4)) == (True, True, False)
    assert said(judged(returns, -mean)) == (False, False, False)
    assert judged(returns, -mean).less_accurate
    noise = np.random.default_rng(9).normal(0, 1e-4, 4_000)
    assert said(judged(returns, noise)) == (False, False, False)


def test_persistence_itself_has_no_skill():
    returns, mean = market(300, r_squared=0.1)
    found = judged(returns, 0 * mean)
    assert said(found) == (False, False, False)
    assert (found.r2, found.r2_weighted, found.trading) == (0.0, 0.0, None)
    assert found.headline.startswith("No proven worth")


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_another_unit_gives_the_same_grades(unit):
    returns, mean = market(1_000, r_squared=0.03)
    ours, theirs = judged(returns, mean), judged(unit * returns, unit * mean)
    for one, other in zip(
        (ours.information, ours.accuracy), (theirs.information, theirs.accuracy), strict=True
    ):
        assert one is not None and other is not None
        assert other.log_e == pytest.approx(one.log_e, abs=1e-9)
    assert ours.test is not None and theirs.test is not None
    assert theirs.test.t == pytest.approx(ours.test.t, rel=1e-9)
    assert theirs.r2 == pytest.approx(ours.r2, rel=1e-9)


@pytest.mark.parametrize(("count", "horizon"), [(0, 1), (29, 1), (30, 1), (719, 24), (720, 24)])
def test_grades_need_thirty_forecasts_that_do_not_overlap(count, horizon):
    returns, mean = market(count + 24, r_squared=0.1)
    found = judged(returns, mean, horizon=horizon)
    assert found.count == count
    assert (found.test is not None) == (count // horizon >= 30)
    assert (found.information is None) == (horizon > 1)


def test_json_has_every_number_grade_and_sentence():
    returns, mean = market(524, r_squared=0.1)
    found = judged(returns, mean)
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (again["headline"], again["details"]) == (found.headline, found.details)
    assert (again["informative"], again["more_accurate"], again["worth_its_costs"]) == said(found)
    assert found.test is not None and again["test"] == {"t": found.test.t, "p": found.test.p}
    assert Evidence(**again["accuracy"]) == found.accuracy
    assert again["count"] == found.count == 500
