"""The judgement of hand-made folds, against loops over the rows and other libraries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bitstorm.backtest import judgement, outlook
from bitstorm.evaluation import volatility
from bitstorm.evaluation.intervals import LEVELS, terciles
from bitstorm.model.series import Series

HOUR = 3_600_000
T0 = 1_700_000_000_000 // HOUR * HOUR
STEPS = 3


def market(hours: int, *, seed: int = 3) -> Series:
    random = np.random.default_rng(seed)
    wild = np.repeat(random.choice([0.5, 1.0, 2.0], hours // 100 + 1), 100)[:hours]
    return Series(T0, HOUR, 20_000 * np.exp(np.cumsum(0.005 * wild * random.standard_t(5, hours))))


def frame_of(series: Series, first: int, last: int, *, known: float = 0.0) -> pd.DataFrame:
    """Forecasts from the origins `first` to `last`; the network knows this share of each return."""
    origins = np.arange(first, last + 1)
    price = series.price
    later = origins[:, None] + np.arange(1, STEPS + 1)
    actual = price[later]
    origin = np.repeat(price[origins], STEPS)
    noise = np.random.default_rng(first).normal(0, 0.001, actual.size)
    return pd.DataFrame(
        {
            "origin_timestamp": np.repeat(T0 + origins * series.step_ms, STEPS),
            "step": np.tile(np.arange(1, STEPS + 1, dtype=np.int32), len(origins)),
            "origin_price": origin,
            "actual": actual.ravel(),
            "network": origin * np.exp(known * np.log(actual.ravel() / origin) + noise),
            "persistence": origin,
            "drift": origin * 1.0001,
        }
    )


def graded(frame: pd.DataFrame, series: Series) -> dict:
    return judgement.grades(frame, series, frequency="1h", source="made", fee=10.0)


def test_grades_are_of_step_1_and_later_steps_are_tested(monkeypatch):
    monkeypatch.setattr(judgement, "LATER_STEPS", (3, 24))
    series = market(900)
    frame = frame_of(series, 600, 880, known=0.5)
    frame.loc[3, "actual"] = np.nan
    found = graded(frame, series)
    assert list(found) == ["network", "drift"]
    ours = found["network"]
    assert ours["data"] == "made, 2023-12-09T23:00:00Z to 2023-12-21T15:00:00Z"
    assert (ours["count"], ours["horizon"], ours["fee"]) == (280, 1, 10.0)
    assert ours["informative"] and ours["more_accurate"] and ours["worth_its_costs"]
    assert ours["headline"].startswith("Worth something")

    # Step 3, by loops.
    returns = series.returns
    gains = []
    for row in frame[frame["step"] == 3].to_dict("records"):
        place = (row["origin_timestamp"] - T0) // HOUR
        weights = 0.97 ** np.arange(place)
        sigma = math.sqrt(3 * (weights @ returns[place:0:-1] ** 2) / weights.sum())
        z, g = (
            min(max(math.log(row[name] / row["origin_price"]) / sigma, -5), 5)
            for name in ("actual", "network")
        )
        gains.append(z**2 - (z - g) ** 2)
    n, mean = len(gains), np.mean(gains)
    centred = np.array(gains) - mean
    variance = centred @ centred / n
    variance += 2 * sum(centred[lag:] @ centred[:-lag] / n for lag in (1, 2))
    t = mean / math.sqrt(variance / n) * math.sqrt((n - 3) * (n - 2)) / n
    assert ours["later"] == {
        "3": {
            "count": 281,
            "t": pytest.approx(t, rel=1e-9),
            "p": pytest.approx(stats.t.sf(t, n - 1), rel=1e-6),
        }
    }


def test_few_forecasts_are_not_graded():
    series = market(700)
    found = graded(frame_of(series, 600, 620), series)["network"]
    assert found["headline"].startswith("Too few forecasts") and found["test"] is None
    assert graded(frame_of(series, 600, 620).assign(actual=np.nan), series) == {}


def test_evidence_grows_with_each_outcome_to_the_graded_value():
    series = market(900)
    frame = frame_of(series, 600, 880, known=0.3)
    found = judgement.evidence(frame, series)
    assert found["timestamp"].tolist() == [T0 + n * HOUR for n in range(601, 882)]
    grades = graded(frame, series)["network"]
    for name in ("information", "accuracy"):
        assert found[name].iloc[-1] == grades[name]["log_e"]
        assert found[name].max() == pytest.approx(grades[name]["largest"])


def test_the_skill_of_a_fold_has_its_uncertainty():
    frame = frame_of(market(900), 600, 700, known=0.2)
    frame.loc[7, "actual"] = np.nan
    gains, still = [], []
    for _, rows in frame.groupby("origin_timestamp"):
        if rows["actual"].isna().any():
            continue
        errors = np.log(rows["network"] / rows["actual"]) ** 2
        losses = np.log(rows["origin_price"] / rows["actual"]) ** 2
        gains.append((losses - errors).mean())
        still.append(losses.mean())
    assert len(gains) == 100
    centred = np.array(gains) - np.mean(gains)
    variance = centred @ centred / 100
    variance += 2 * sum(centred[lag:] @ centred[:-lag] / 100 for lag in (1, 2))
    noise = 1.645 * math.sqrt(variance / 100) / np.mean(still)
    skill = np.mean(gains) / np.mean(still)
    few, whole = judgement.fold_skills([frame.head(9), frame])
    assert all(math.isnan(value) for value in few.values())
    assert whole == pytest.approx({"skill": skill, "lower": skill - noise, "upper": skill + noise})


def test_the_volatility_of_a_day_is_that_of_its_returns():
    series = market(300)
    series.price[150] = np.nan
    frame = frame_of(series, 100, 290)
    frame["variance"] = 24 * 0.01**2
    found = judgement.day_volatility(frame, series)
    assert found["forecast"].to_numpy() == pytest.approx(np.full(191, 0.01))
    assert found["timestamp"].tolist() == [T0 + (place + 24) * HOUR for place in range(100, 291)]
    for place, realised in zip(range(100, 291), found["realised"], strict=True):
        day = np.diff(np.log(series.price[place : place + 25]))
        # The hole takes two returns; the days after place 275 are not over.
        if place + 24 in range(150, 175) or place > 275:
            assert math.isnan(realised)
        else:
            assert realised == pytest.approx(math.sqrt(np.mean(day**2)), rel=1e-9)


@pytest.mark.parametrize("step_ms", [HOUR, 24 * HOUR])
def test_intervals_are_counted_by_level_step_and_tercile(step_ms):
    series = replace(market(2_000), step_ms=step_ms)
    frame = frame_of(series, 1_200, 1_990, known=0.5)
    frame.loc[10, "actual"] = np.nan
    found = judgement.interval_scores(frame, series, full=False)
    assert (found["origins"], found["levels"]) == (791, [0.5, 0.8, 0.9, 0.95])
    assert list(found["around"]) == ["persistence", "network"]
    half = outlook.half_widths(series, steps=STEPS, levels=LEVELS)
    regime = terciles(series.returns, rules=outlook.rules_of(step_ms))
    held, winkler = [], []
    for row in frame.dropna().to_dict("records"):
        place, step = (row["origin_timestamp"] - T0) // step_ms, row["step"] - 1
        width = half[place, step]
        missed = abs(math.log(row["network"] / row["actual"]))
        held.append([step, regime[place], *(missed <= width)])
        winkler.append([step, 2 * width[2] + 20 * max(missed - width[2], 0)])
    held = pd.DataFrame(held, columns=["step", "tercile", *LEVELS]).astype(float)
    ours = found["around"]["network"]
    np.testing.assert_allclose(ours["overall"], held[[*LEVELS]].mean())
    np.testing.assert_allclose(ours["steps"], held.groupby("step")[[*LEVELS]].mean())
    np.testing.assert_allclose(ours["terciles"], held.groupby("tercile")[[*LEVELS]].mean())
    cells = held.pivot_table(0.9, "tercile", "step")
    np.testing.assert_allclose(ours["cells"], cells)
    worst = np.abs(cells - 0.9).max().max()
    assert ours["misses"]["cells"][2] == pytest.approx(worst)
    np.testing.assert_allclose(ours["winkler_90"], pd.DataFrame(winkler).groupby(0).mean()[1])
    chance = found["oracle"]["terciles"]
    assert all(0 < low < high for low, high in zip(chance["median"], chance["95"], strict=True))


def test_distributions_are_scored_beside_garch_paths():
    series = market(1_500)
    around = judgement.interval_scores(frame_of(series, 1_100, 1_490), series, full=True)["around"]
    assert list(around) == ["persistence", "network", "garch_t"]
    # The same market: so the scores are alike.
    ours, theirs = (np.array(around[name]["crps"]) for name in ("persistence", "garch_t"))
    np.testing.assert_allclose(ours, theirs, rtol=0.1)
    gap = around["persistence"]["crps_less_garch_t"]
    assert gap["mean"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    assert gap["lower"] < gap["mean"] < gap["upper"]
    assert around["garch_t"]["overall"] == pytest.approx(LEVELS, abs=0.08)
    assert sum(around["network"]["pit"]["1"]) == 391
    assert sum(around["network"]["pit"]["all"]) == 391 * STEPS
    # Uniform, but for chance.
    assert min(around["persistence"]["pit"]["all"]) > 391 * STEPS / 10 / 2


def test_origins_before_the_series_have_no_interval():
    series = market(2_000)
    late = Series(T0 + 1_500 * HOUR, HOUR, series.price[1_500:])
    frame = frame_of(series, 1_200, 1_990)
    assert judgement.interval_scores(frame, late, full=False)["origins"] == 491


def test_a_short_series_has_no_numbers_but_no_failure():
    series = market(90)
    found = judgement.interval_scores(frame_of(series, 50, 80), series, full=True)
    assert np.isnan(found["around"]["network"]["overall"]).all()
    assert np.isnan(found["around"]["garch_t"]["crps"]).all()
    assert found["around"]["network"]["pit"]["all"] == [0] * 10
    volatile = judgement.volatility_scores(frame_of(series, 50, 80), series)
    assert (volatile["horizon"], volatile["models"]) == (24, {})


def test_variances_are_scored_at_the_origins():
    series = market(2_200)
    frame = frame_of(series, 1_500, 2_190)
    returns = series.returns
    true = np.full(len(returns), np.nan)
    for t in range(len(returns) - 24):
        true[t] = (returns[t + 1 : t + 25] ** 2).sum()
    frame["variance"] = np.repeat(1.1 * true[1_500:2_191], STEPS)
    found = judgement.volatility_scores(frame, series)
    names = {"persistence", "ewma", "har", "log_har", "garch_t", "recipe_a", "network"}
    assert found["models"].keys() == names | {"network_and_recipe_a"}
    # The last outcome that is known is of the origin 2,175.
    assert (found["horizon"], found["origins"]) == (24, 676)
    losses = {}
    for name in ("recipe_a", "log_har"):
        forecast = volatility.forecast_variance(name, returns, first_ms=T0)[1_500:2_176]
        ratio = true[1_500:2_176] / forecast
        losses[name] = np.mean(ratio - np.log(ratio) - 1)
    losses["network"] = 1 / 1.1 - np.log(1 / 1.1) - 1
    for name, loss in losses.items():
        assert found["models"][name]["qlike"] == pytest.approx(loss, rel=1e-9)
    gap = found["models"]["network"]["against"]["log_har"]
    assert gap["mean"] == pytest.approx(losses["network"] - losses["log_har"])
    assert gap["lower"] < gap["mean"] < gap["upper"] < 0
