"""Leaks: each planted one is found and named, at any size; clean configurations give no alarm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.backtest import fold as folding
from bitstorm.backtest import known, leakage
from bitstorm.backtest.folds import make_folds
from bitstorm.backtest.known import Setup, Way
from bitstorm.backtest.leakage import ADVICE, Comparison, Leak, check
from bitstorm.backtest.plants import PLANTS, later_price
from bitstorm.cli.models import PLANTS as NAMES
from bitstorm.core.settings import Backtest, Training
from bitstorm.evaluation import intervals
from bitstorm.model.windowing import Columns, WindowSpec

HOUR = 3_600_000
FIRST = 450_000
TRAINING, BACKTEST = Training(look_back=6), Backtest(folds=2)


def points(n: int = 450, *, seed: int = 1, gaps: bool = True) -> Columns:
    """Prices on a grid with a hole, and with imputed points that repeat the price before them."""
    chance = np.random.default_rng(seed)
    logs = np.cumsum(0.01 * chance.standard_t(4, n))
    imputed = np.zeros(n, bool)
    index = FIRST + np.arange(n)
    kept = np.ones(n, bool)
    if gaps:
        for begin in chance.integers(10, n - 10, 5):
            imputed[begin : begin + 3] = True
            logs[begin : begin + 3] = logs[begin - 1]
        begin = int(chance.integers(n // 3, n // 2))
        kept[begin : begin + 12] = False
    rising = np.sign(np.diff(logs, prepend=logs[0]))
    columns = {"rising": rising, "mean": np.convolve(logs, np.full(3, 1 / 3))[:n]}
    columns["mean"][:2] = np.nan
    price = (20_000 * np.exp(logs)).astype(np.float32)
    every = {"index": index, "price": price, "imputed": imputed, **columns}
    return {name: values[kept] for name, values in every.items()}


def setup(
    series: Columns,
    *,
    features: tuple[str, ...] = ("log_return",),
    steps: int = 3,
    training: Training = TRAINING,
    backtest: Backtest = BACKTEST,
    baselines: tuple[str, ...] = ("persistence", "ar"),
) -> Setup:
    index = series["index"]
    spec = WindowSpec(training.look_back, training.horizon, features, training.target, HOUR, 256)
    warm_up = training.look_back + training.horizon + 2
    ends = int(index[0]), int(index[-1])
    folds = make_folds(*ends, backtest, training, steps=steps, warm_up=warm_up)
    return Setup(spec, folds, training, baselines, steps)


def first_leak(way: Way, series: Columns | None = None) -> Leak:
    series = points() if series is None else series
    leak, *_ = check(series, setup(series).through(way), seed=3, cuts=1).first_leaks()
    return leak


@pytest.mark.slow
def test_a_clean_way_has_no_leak_and_every_kind_is_compared():
    series = points(1_400)
    found = check(series, setup(series, features=("log_return", "rising", "mean")), seed=2, cuts=2)
    assert found.leaks == []
    assert {*found.compared} == {*ADVICE} - {"network from the future"}
    assert min(found.compared.values()) > 0


@pytest.mark.parametrize("name", PLANTS)
def test_each_planted_leak_is_found_and_named(name: str) -> None:
    assert first_leak(PLANTS[name].way).name == PLANTS[name].leak


def test_the_command_offers_each_plant():
    assert [*NAMES] == [*PLANTS]
    assert {plant.leak for plant in PLANTS.values()} <= {*ADVICE}


def from_the_end(*given: Any, **options: Any) -> np.ndarray:
    """Learns from the last outcome to the first."""
    return intervals.calibrate(*(values[::-1] for values in given), **options)[::-1]


def variances_of_whole(returns: np.ndarray, **options: Any) -> np.ndarray:
    return np.full((len(returns), options["horizon"]), np.nanvar(returns))


def variances_from_the_first_day(returns: np.ndarray, **options: Any) -> np.ndarray:
    """A filter that begins with the mean of 24 values, as if these were known at the begin."""
    found = np.full((len(returns), options["horizon"]), np.nan)
    found[1:24] = np.nanmean(returns[:24] ** 2)
    return found


def fit_on_test(names: Any, price: np.ndarray, fold: Any, **options: Any) -> dict[str, np.ndarray]:
    later = replace(fold, validate_until=fold.test_until)
    return folding.baseline_returns(names, price, later, **options)


def spans_into_test(spec: WindowSpec, fold: Any) -> dict[str, tuple[int, int]]:
    return {**folding.fitted_spans(spec, fold), "validation": (fold.train_until, fold.test_until)}


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (Way(calibrate=from_the_end), "quantile from the future"),
        (Way(step_variances=variances_of_whole), "variance from the future"),
        (Way(step_variances=variances_from_the_first_day), "variance from the future"),
        (Way(terciles=lambda r: intervals.terciles(r[::-1])[::-1]), "threshold from the future"),
        (Way(baseline_returns=fit_on_test), "prediction from the future"),
        (Way(fitted_spans=spans_into_test), "test rows in training"),
    ],
)
def test_leaks_at_other_places_are_named(way: Way, name: str) -> None:
    assert first_leak(way).name == name


@settings(max_examples=30, deadline=None)
@given(size=st.floats(1e-3, 1e3), steps=st.integers(1, 40), cut=st.integers(100, 400))
def test_a_look_ahead_of_any_size_is_found(size: float, steps: int, cut: int) -> None:
    def column(some: Columns, spec: WindowSpec) -> np.ndarray:
        now = np.log(some["price"].astype(np.float64))
        return now + size * np.nan_to_num(np.log(later_price(some, steps=steps)))

    series = points(gaps=False)
    way = setup(series).through(Way(columns={"planted": column}))
    comparison = Comparison(way, series, np.random.default_rng(cut))
    comparison.run(known.point_outputs, [FIRST + cut])
    leak, *_ = comparison.first_leaks()
    # The earliest value with a later point in it is `steps` before the cut's next point.
    assert (leak.name, leak.what, leak.ahead) == ("look-ahead feature", "planted", steps)


@settings(max_examples=15, deadline=None)
@given(size=st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9), horizon=st.integers(1, 5))
def test_a_target_in_any_unit_is_named(size: float, horizon: int) -> None:
    series = points()
    training = Training(look_back=6, horizon=horizon)

    def column(some: Columns, spec: WindowSpec) -> np.ndarray:
        return size * np.log(later_price(some, steps=horizon) / some["price"]) + size

    way = setup(series, training=training, steps=5).through(Way(columns={"mine": column}))
    (leak,) = leakage.target_in_features(Comparison(way, series, np.random.default_rng(1)).whole)
    assert (leak.name, leak.what, leak.ahead) == ("target in the features", "mine", horizon)


@settings(max_examples=5, deadline=None)
@given(early=st.integers(1, 3), cut=st.integers(300, 440))
def test_a_state_that_learns_too_early_is_found(early: int, cut: int) -> None:
    def too_early(returns: np.ndarray, *given: Any, **options: Any) -> np.ndarray:
        return intervals.calibrate(np.append(returns[early:], [np.nan] * early), *given, **options)

    series = points(gaps=False)
    way = setup(series).through(Way(calibrate=too_early))
    comparison = Comparison(way, series, np.random.default_rng(cut))
    comparison.run(known.series_outputs, [FIRST + cut])
    names = [leak.name for leak in comparison.first_leaks()]
    assert "conformal state from the future" in names


def test_the_scaler_says_how_far_ahead_it_looks():
    series = points()
    leak = first_leak(PLANTS["scaler"].way, series)
    fold = setup(series).folds[0]
    # The farthest of the fold's cuts lies in its test part.
    assert fold.test_from - fold.train_until < (leak.ahead or 0) <= fold.test_until
    assert leak.found.startswith("the scale of log_return in fold 1, known at ")


def test_a_missing_embargo_names_both_numbers():
    leak = first_leak(PLANTS["embargo"].way)
    assert "fold 1 has 0 steps between its last fitted target and its first origin" in leak.found
    assert leak.found.endswith("expected at least 9")  # look-back 6 + 3 steps


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), cut=st.integers(1, 448))
def test_another_future_leaves_the_past_and_moves_every_price(seed: int, cut: int) -> None:
    series = points(seed=seed)
    cut += FIRST
    other = known.with_other_future(series, cut=cut, chance=np.random.default_rng(seed))
    again = known.with_other_future(series, cut=cut, chance=np.random.default_rng(seed))
    past = series["index"] <= cut
    for name, values in series.items():
        assert other[name].dtype == values.dtype
        np.testing.assert_array_equal(other[name][past], values[past])
        np.testing.assert_array_equal(other[name], again[name])
    np.testing.assert_array_equal(other["index"], series["index"])
    assert np.isfinite(other["price"]).all() and (other["price"] > 0).all()
    for name in ("price", "rising", "mean"):
        later = ~past & np.isfinite(series[name])
        assert np.mean(other[name][later] != series[name][later]) > 0.9


def test_a_price_that_stands_still_has_another_future_too():
    series = points(gaps=False)
    still = {**series, "price": np.full_like(series["price"], 100), "rising": np.zeros(450)}
    other = known.with_other_future(still, cut=FIRST + 300, chance=np.random.default_rng(1))
    assert (other["price"][301:] != 100).mean() > 0.9 and (other["rising"][301:] != 0).all()


def clean(seed: int) -> tuple[Columns, Setup]:
    """A configuration without a leak, all of it drawn."""
    chance = np.random.default_rng(seed)
    series = points(int(chance.integers(700, 1_300)), seed=seed, gaps=bool(chance.random() < 0.8))
    horizon = int(chance.integers(1, 4))
    training = Training(
        look_back=int(chance.integers(2, 30)),
        horizon=horizon,
        target="log_return" if chance.random() < 0.5 else "price",
    )
    backtest = Backtest(
        folds=int(chance.integers(1, 5)),
        scheme="expanding" if chance.random() < 0.5 else "sliding",
        test_share=float(chance.uniform(0.3, 0.6)),
        embargo=int(chance.integers(60, 90)) if chance.random() < 0.3 else None,
    )
    names = chance.permutation(["log_return", "price", "rising", "mean"])
    features = tuple(map(str, names[: chance.integers(1, 5)]))
    known_baselines = chance.permutation([*folding.default_baselines(HOUR)])
    return series, setup(
        series,
        features=features,
        steps=int(chance.integers(horizon, 13)),
        training=training,
        backtest=backtest,
        baselines=tuple(map(str, known_baselines[:4])),
    )


@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8)),
        *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(8, 20)),
    ],
)
def test_a_clean_configuration_gives_no_alarm(seed: int) -> None:
    series, configuration = clean(seed)
    assert check(series, configuration, seed=seed, cuts=3).leaks == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_plant_is_named_in_a_drawn_configuration(seed: int) -> None:
    series, configuration = clean(seed)
    plant = [*PLANTS.values()][seed % len(PLANTS)]
    leak, *_ = check(series, configuration.through(plant.way), seed=seed, cuts=1).first_leaks()
    assert leak.name == plant.leak
