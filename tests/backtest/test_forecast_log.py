"""Logged forecasts: their rows, the seal, and scores that are computed again by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.backtest import forecast_log
from bitstorm.backtest.forecast_log import Made, Outcomes
from bitstorm.core.schema import FORECASTS, LEVELS
from bitstorm.store.seal import arrow_schema

HOUR = 3_600_000
START = 1_735_689_600_000  # 2025-01-01T00:00:00Z
MADE = Made("run-1", "00000007-abc", "d1", made_at=START + 5, known_until=START)
NOWHERE = np.full((3, len(LEVELS), 2), np.nan)


def rows_of(
    made: Made = MADE,
    origin: int = START,
    price: float = 100.0,
    returns: tuple[float, ...] = (0.01, 0.0, -0.02),
    bounds: np.ndarray = NOWHERE,
):
    return forecast_log.to_rows(
        made,
        origin=origin,
        origin_price=price,
        log_returns=np.array(returns),
        bounds=bounds,
        step_ms=HOUR,
    )


def test_a_forecast_becomes_a_row_for_each_step():
    bounds = NOWHERE.copy()
    bounds[0, LEVELS.index(80)] = (98.0, 103.0)
    rows = rows_of(bounds=bounds)
    assert rows.schema == arrow_schema(FORECASTS)
    nothing = {f"{end}_{level}": [None] * 3 for level in LEVELS for end in ("lower", "upper")}
    found = rows.to_pydict()
    expected = [100 * math.exp(0.01), 100.0, 100 * math.exp(-0.02)]
    assert found.pop("forecast") == pytest.approx(expected, rel=1e-15)
    assert found == {
        "timestamp": [START + n * HOUR for n in (1, 2, 3)],
        "step": [1, 2, 3],
        "run": ["run-1"] * 3,
        "origin": [START] * 3,
        "origin_price": [100.0] * 3,
        **nothing,
        "lower_80": [98.0, None, None],
        "upper_80": [103.0, None, None],
        "made_at": [START + 5] * 3,
        "known_until": [START] * 3,
        "indicators": ["00000007-abc"] * 3,
        "digest": ["d1"] * 3,
    }


@pytest.mark.parametrize(
    ("made_at", "known_until", "by_clock", "kept"),
    [
        (START + 5, START, True, [1, 2, 3]),
        (START + HOUR - 1, START, True, [1, 2, 3]),
        (START + HOUR, START, True, [2, 3]),
        (START + 9 * HOUR, START, True, []),
        (START + 9 * HOUR, START, False, [1, 2, 3]),
        (START + 5, START + 2 * HOUR, True, [3]),
        (START + 5, START + 2 * HOUR, False, [3]),
    ],
)
def test_only_steps_that_are_still_open_are_sealed(made_at, known_until, by_clock, kept):
    rows = rows_of(replace(MADE, made_at=made_at, known_until=known_until))
    assert forecast_log.only_sealed(rows, by_clock=by_clock)["step"].to_pylist() == kept


def market(count: int, *, seed: int = 3) -> np.ndarray:
    """Hourly prices as float32 holds them, from START - 100 h on."""
    returns = np.random.default_rng(seed).normal(0, 0.01, count)
    return (100 * np.exp(np.cumsum(returns))).astype(np.float32).astype(np.float64)


def outcomes(prices: np.ndarray) -> Outcomes:
    return Outcomes(START - 100 * HOUR, prices, HOUR, "1h", "csv, bitcoin, usd")


def logged(
    prices: np.ndarray, hours: range, *, run: str = "run-1", seed: int = 5, steps: int = 2
) -> pd.DataFrame:
    """A forecast at each hour after START, with intervals of 80 % for step 1."""
    random = np.random.default_rng(seed)
    pieces = []
    for hour in hours:
        price = prices[100 + hour]
        bounds = np.full((steps, len(LEVELS), 2), np.nan)
        bounds[0, LEVELS.index(80)] = price * 0.99, price * 1.012
        origin = START + hour * HOUR
        made = Made(run, "00000001-abc", "d", origin + 60_000, origin)
        returns = tuple(random.normal(0, 0.003, steps).tolist())
        pieces.append(rows_of(made, origin, price, returns, bounds).to_pandas())
    return pd.concat(pieces, ignore_index=True)


def by_hand(log: pd.DataFrame, prices: np.ndarray, step: int) -> Iterator[tuple[float, float]]:
    """(outcome, forecast) as log returns of each scored row of this step, in the order of time."""
    for row in log[log["step"] == step].sort_values("timestamp").itertuples():
        place = (row.timestamp - START) // HOUR + 100
        if place < len(prices) and not math.isnan(prices[place]):
            yield (
                math.log(prices[place] / row.origin_price),
                math.log(row.forecast / row.origin_price),
            )


def e_information_by_hand(log: pd.DataFrame, prices: np.ndarray) -> float:
    """The mean over the bets of ∏ (1 + min(λ, 0.9/(5|g|)) z g), row by row."""
    wealth = dict.fromkeys((0.1, 0.25, 0.5, 0.75, 1.0), 1.0)
    for row in log[log["step"] == 1].sort_values("timestamp").itertuples():
        place = (row.timestamp - START) // HOUR + 100
        if place >= len(prices) or math.isnan(prices[place]):
            continue
        weights = squares = 0.0
        for before in range(1, place):
            change = math.log(prices[before] / prices[before - 1])
            if not math.isnan(change):
                weights, squares = 0.97 * weights + 1, 0.97 * squares + change**2
        sigma = math.sqrt(squares / weights)
        z, g = (
            max(-5.0, min(5.0, math.log(value / row.origin_price) / sigma))
            for value in (prices[place], row.forecast)
        )
        for bet in wealth:
            wealth[bet] *= 1 + min(bet, 0.9 / (5 * abs(g))) * z * g
    return sum(wealth.values()) / len(wealth)


def test_a_score_is_the_sum_of_its_rows():
    prices = market(160)
    prices[[120, 133]] = np.nan  # imputed
    log = logged(prices, range(1, 19))
    log = pd.concat([log, logged(prices, range(34, 60), seed=6)])
    whole, run = forecast_log.score(log, outcomes(prices), fee=10.0)
    assert replace(whole, run="run-1") == run
    # Outcomes at hours 2 to 20 and 35 to 61; hour 20 is unobserved, 60 and 61 are to come.
    assert (run.logged, run.scored, run.waiting, run.unobserved) == (88, 84, 3, 1)
    for found, step in zip(run.steps, (1, 2), strict=True):
        pairs = list(by_hand(log, prices, step))
        rmse = math.sqrt(sum((r - f) ** 2 for r, f in pairs) / len(pairs))
        stays = math.sqrt(sum(r**2 for r, _ in pairs) / len(pairs))
        assert (found.step, found.scored) == (step, len(pairs))
        assert (found.rmse, found.rmse_persistence) == pytest.approx((rmse, stays), rel=1e-12)
        assert found.skill == pytest.approx(1 - (rmse / stays) ** 2, rel=1e-9)
    held = [math.log(0.99) <= r <= math.log(1.012) for r, _ in by_hand(log, prices, 1)]
    (coverage,) = run.coverage
    assert (coverage.level, coverage.scored, coverage.share) == (80, len(held), np.mean(held))
    assert run.grades.count == len(held) and run.grades.live and run.grades.horizon == 1
    assert run.grades.information is not None
    expected = e_information_by_hand(log, prices)
    assert math.exp(run.grades.information.log_e) == pytest.approx(expected, rel=1e-9)
    assert run.grades.data == ("csv, bitcoin, usd; 2025-01-01T02:00:00Z to 2025-01-03T11:00:00Z")
    assert run.drift == ()


def test_each_outcome_counts_once_for_all_runs_together():
    prices = market(150)
    first = logged(prices, range(1, 30), run="run-1")
    second = logged(prices, range(20, 40), run="run-2", seed=9).assign(
        # The second run forecasts earlier in the hour, from hour 25 on.
        made_at=lambda rows: rows["made_at"] + np.where(rows["origin"] < START + 25 * HOUR, 1, -1)
    )
    whole, *runs = forecast_log.score(pd.concat([first, second]), outcomes(prices), fee=10.0)
    assert [score.run for score in runs] == ["run-2", "run-1"]
    assert [score.logged for score in runs] == [40, 58]
    early = first["origin"] < START + 25 * HOUR
    chosen = pd.concat([first[early], second[second["origin"] >= START + 25 * HOUR]])
    # Outcomes of step 1 at hours 2 to 40, and of step 2 at hours 3 to 41.
    assert whole.logged == 78
    alone, _ = forecast_log.score(chosen.assign(run="one"), outcomes(prices), fee=10.0)
    assert (whole.grades, whole.coverage) == (alone.grades, alone.coverage)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_a_score_depends_neither_on_order_nor_on_later_prices(seed, known):
    prices = market(150, seed=seed % 7)
    log = logged(prices, range(1, 41))
    shuffled = log.sample(frac=1, random_state=seed)
    until = prices[: 101 + known]
    wanted, *_ = forecast_log.score(log[log["timestamp"] <= START + known * HOUR],
                                    outcomes(until), fee=10.0)  # fmt: skip
    found, *_ = forecast_log.score(shuffled, outcomes(until), fee=10.0)
    assert (found.grades, found.steps, found.coverage) == (
        wanted.grades, wanted.steps, wanted.coverage,
    )  # fmt: skip
    assert found.waiting == found.logged - found.scored


def test_forecasts_of_another_grid_have_no_outcome():
    prices = market(150)
    log = logged(prices, range(1, 10)).assign(origin=lambda rows: rows["origin"] - HOUR)
    whole, _ = forecast_log.score(log, outcomes(prices), fee=10.0)
    assert (whole.scored, whole.unobserved) == (0, 18)
    assert whole.grades.headline.startswith("Too few forecasts to judge")
    assert whole.grades.data == "csv, bitcoin, usd; no outcome yet"


@pytest.mark.parametrize(("count", "grown", "drifts"), [(336, 3, 1), (335, 3, 0), (336, 1, 0)])
def test_an_interval_that_holds_no_more_drifts(count, grown, drifts):
    random = np.random.default_rng(4)
    returns = random.uniform(-0.01, 0.01, 101 + count)
    returns[-168:] *= grown
    prices = (100 * np.exp(np.cumsum(returns))).astype(np.float32).astype(np.float64)
    log = logged(prices, range(count), steps=1)
    whole, _ = forecast_log.score(log, outcomes(prices), fee=10.0)
    coverage = [sentence for sentence in whole.drift if "80 % interval" in sentence]
    assert len(coverage) == drifts
    for sentence in coverage:
        held = [math.log(0.99) <= r <= math.log(1.012) for r, _ in by_hand(log, prices, 1)]
        assert sentence == (
            f"the share that the 80 % interval holds is {np.mean(held[-168:]):.3f} over the last "
            f"168 outcomes, and {np.mean(held[:-168]):.3f} over the 168 before"
        )
