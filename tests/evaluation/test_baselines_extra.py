"""The price baselines of optional packages."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from bitstorm.core.errors import EnvironmentProblem, ModelError
from bitstorm.evaluation import baselines_extra
from bitstorm.evaluation.baselines import examples, past
from bitstorm.evaluation.baselines_extra import EXTRA_BASELINES

STEPS = 3
FIT_UNTIL = 799
ORIGINS = np.array([799, 800, 999])


def market() -> np.ndarray:
    """1,000 returns; after a rise two steps ago the next one falls, after a fall it is noise."""
    random = np.random.default_rng(8)
    returns = 0.01 * random.standard_normal(1_000)
    for t in range(2, len(returns)):
        returns[t] -= 0.8 * max(returns[t - 2], 0.0)
    returns[0] = np.nan
    return returns


def forecast(name: str, returns: np.ndarray) -> np.ndarray:
    return EXTRA_BASELINES[name](returns, fit_until=FIT_UNTIL, origins=ORIGINS, steps=STEPS)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("auto_arima", "statsforecast", "baselines"),
        ("auto_ets", "statsforecast", "baselines"),
        ("boost", "lightgbm", "boost"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentProblem) as refused:
        forecast(name, market())
    assert str(refused.value) == (
        f"the baseline {name} needs {package}, which is not installed: run pip install "
        f"'bitstorm[{extra}]', or leave {name} out"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRA_BASELINES)
def test_later_returns_change_no_forecast(name):
    returns = market()
    changed = returns.copy()
    changed[801:] = 0.02
    before, after = forecast(name, returns), forecast(name, changed)
    assert before.shape == (3, STEPS)
    assert before.dtype == np.float64
    assert np.array_equal(before[:2], after[:2])
    assert not np.array_equal(before[2], after[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto_arima", "auto_ets"])
def test_automatic_models_are_those_of_cross_validation(name):
    from statsforecast import StatsForecast
    from statsforecast.models import AutoARIMA, AutoETS

    returns = np.nan_to_num(market())
    arima = name == "auto_arima"
    model = AutoARIMA(d=0, alias="model") if arima else AutoETS(model="AZN", alias="model")
    frame = pd.DataFrame(
        {"unique_id": 0, "ds": np.arange(1_000), "y": returns if arima else np.cumsum(returns)}
    )
    # The windows' origins are 799, 800, … 996; the model is fitted at the first.
    windows = StatsForecast(models=[model], freq=1).cross_validation(
        df=frame, h=STEPS, n_windows=198, step_size=1, refit=False
    )
    theirs = windows["model"].to_numpy().reshape(198, STEPS)
    origins = np.arange(799, 997)
    expected = theirs.cumsum(axis=1) if arima else theirs - np.cumsum(returns)[origins][:, None]
    found = EXTRA_BASELINES[name](returns, fit_until=799, origins=origins, steps=STEPS)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto_arima", "auto_ets"])
def test_a_failed_fit_is_an_error_not_a_fallback(name):
    with pytest.raises(ModelError, match=rf"^{name} cannot be fitted on 3 returns \(.+\): leave"):
        EXTRA_BASELINES[name](market(), fit_until=2, origins=np.array([2]), steps=1)


@pytest.mark.slow
def test_boosting_is_that_of_the_scikit_learn_interface():
    from lightgbm import LGBMRegressor

    returns = market()
    lags, target, weight = examples(returns[: FIT_UNTIL + 1], STEPS)
    scale = weight.mean() ** -0.5
    found = forecast("boost", returns)
    for step in range(STEPS):
        model = LGBMRegressor(
            n_estimators=50,
            learning_rate=0.02,
            num_leaves=8,
            min_child_samples=100,
            n_jobs=1,
            deterministic=True,
            force_row_wise=True,
            random_state=0,
            verbosity=-1,
        ).fit(lags, target[:, step] / scale, sample_weight=weight * scale**2)
        expected = scale * model.predict(past(returns, ORIGINS, lags.shape[1]))
        assert found[:, step] == pytest.approx(expected, rel=1e-9)
    assert np.array_equal(found, forecast("boost", returns))


@pytest.mark.slow
def test_boosting_finds_what_is_not_linear():
    returns = market()
    origins = np.arange(FIT_UNTIL, 998)
    found = baselines_extra.boost(returns, fit_until=FIT_UNTIL, origins=origins, steps=1)[:, 0]
    fallen = returns[origins - 1] < 0
    assert found[fallen].mean() - found[~fallen].mean() > 0.002
