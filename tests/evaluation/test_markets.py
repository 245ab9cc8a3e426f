"""The verdict's error rates and power: a small proof, and the long one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitstorm.evaluation import markets
from bitstorm.evaluation.markets import HOURS, MODELS, RULES, Rate, measured, prove


@pytest.mark.slow
def test_a_hundred_markets_keep_the_claims():
    seen: list[int] = []
    proof = prove(100, seed=2, progress=seen.append)
    assert seen == list(range(1, 101))
    assert proof.broken == ()
    # Every rule, but the longer horizon only without skill.
    assert len(proof.rates) == len(HOURS) * (4 * len(MODELS) + 2)
    assert proof.rate(RULES[4], "R² 1 %", 1_314) is None
    found = proof.rate("informative", "R² 2 %", 8_760)
    assert found is not None and found.share > 0.9
    assert proof.facts()["informative; no skill; 1,314 h"].endswith(" %")


def test_a_market_depends_on_the_seed_and_its_number_alone():
    two, three = (prove(n, seed=5, hours=(300,)) for n in (2, 3))
    other = prove(3, seed=6, hours=(300,))
    counts = [[round(r.share * p.markets) for r in p.rates] for p in (two, three)]
    assert all(0 <= more - less <= 1 for less, more in zip(*counts, strict=True))
    assert three == prove(3, seed=5, hours=(300,))
    assert three.rates != other.rates


@pytest.mark.parametrize(
    ("rate", "holds"),
    [
        # 100 markets: three standard errors of 5 % are 6.5 points, of 95 % as many.
        (Rate("more accurate", "no skill", 1_314, 0.11, 0.0), True),
        (Rate("more accurate", "no skill, skewed", 1_314, 0.12, 0.0), False),
        (Rate("more accurate", "R² 1 %", 8_760, 0.89, 0.0), True),
        (Rate("more accurate", "R² 1 %", 8_760, 0.88, 0.0), False),
        (Rate("more accurate", "R² 0.5 %", 8_760, 0.0, 0.0), True),
        (Rate("informative", "no skill", 1_314, 0.07, 0.0), False),
    ],
)
def test_a_claim_has_three_standard_errors_of_room(rate, holds):
    assert rate.holds(100) is holds


@pytest.mark.parametrize("skewed", [False, True])
def test_returns_have_mean_zero_and_the_stated_r_squared(skewed):
    random = np.random.default_rng(3)
    returns = markets._returns(random, 400_000, skewed=skewed, r_squared=0.02)
    level = math.sqrt(float(np.mean(markets._LEVELS**2)))
    assert returns.std() == pytest.approx(level / math.sqrt(1 - 0.02), rel=0.05)
    assert abs(returns.mean()) < 4 * returns.std() / math.sqrt(len(returns))
    assert np.corrcoef(returns[1:], returns[:-1])[0, 1] == pytest.approx(0.02**0.5, abs=0.02)
    # The median of a left-skewed shock lies above its mean.
    shift = float(np.median(returns) / returns.std())
    assert (shift > 0.03) if skewed else (abs(shift) < 0.01)


@pytest.mark.faults
def test_a_thousand_markets_keep_the_claims():
    proof = prove()
    for rate in proof.rates:
        if rate.at_least is not None:
            assert rate.share >= rate.at_least, rate
    # Alone, a claim has two standard errors of room.
    assert [rate for rate in proof.rates if not rate.holds(1_000, errors=2.0)] == []
    # The stated rates. A market on the edge may fall on the other side with other libraries.
    for found, stated in zip(proof.rates, measured().rates, strict=True):
        assert found.share == pytest.approx(stated.share, abs=0.003)


def test_the_stated_rates_are_in_the_order_of_a_proof():
    proof = prove(1, hours=HOURS)
    keys = [[(r.rule, r.model, r.hours) for r in p.rates] for p in (proof, measured())]
    assert keys[0] == keys[1]
    stated = measured().rate("more accurate", "R² 1 %", 8_760)
    assert stated is not None and stated.share == 0.996
    assert stated.standard_error == pytest.approx(math.sqrt(0.996 * 0.004 / 1_000))
