"""Price baselines of optional packages: AutoARIMA and AutoETS (extra `baselines`), LightGBM (extra
`boost`). They keep the promises of `baselines`, but for one: AutoARIMA and AutoETS take a missing
return as 0 in the fit, too.

statsforecast's models are used one by one, without its class `StatsForecast`: that one can put the
forecasts of a fallback model into a failed model's column (its issue 1229). Here a failed fit or a
forecast that is no number is an error.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bitstorm.core.errors import EnvironmentProblem, ModelError
from bitstorm.evaluation.baselines import LAGS, Baseline, examples, past

_PACKAGES = {
    "auto_arima": ("statsforecast", "baselines"),
    "auto_ets": ("statsforecast", "baselines"),
    "boost": ("lightgbm", "boost"),
}
# Few rounds of small trees: the share of the variance to be found is below 1 %.
_BOOST: Mapping[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.02,
    "num_leaves": 8,
    "min_data_in_leaf": 100,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}
_ROUNDS = 50


def require(name: str) -> None:
    """Raise EnvironmentProblem where this baseline's package is not installed. Loads nothing."""
    package, extra = _PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        raise EnvironmentProblem(
            f"the baseline {name} needs {package}, which is not installed: run pip install "
            f"'bitstorm[{extra}]', or leave {name} out"
        )


def auto_arima(
    returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int
) -> np.ndarray:
    """AutoARIMA (Hyndman and Khandakar, 2008) of the returns, which need no difference and have no
    season here."""
    require("auto_arima")
    from statsforecast.models import AutoARIMA

    known = np.nan_to_num(returns)
    ahead = _by_fitted("auto_arima", AutoARIMA(d=0), known, fit_until, origins, steps)
    return np.cumsum(ahead, axis=1)


def auto_ets(returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int) -> np.ndarray:
    """AutoETS (Hyndman and others, 2002) of the log price, without a season; its errors are
    additive, because the zero of a log price means nothing."""
    require("auto_ets")
    from statsforecast.models import AutoETS

    price = np.cumsum(np.nan_to_num(returns))
    ahead = _by_fitted("auto_ets", AutoETS(model="AZN"), price, fit_until, origins, steps)
    return ahead - price[origins][:, None]


def _by_fitted(
    name: str, model: Any, series: np.ndarray, fit_until: int, origins: np.ndarray, steps: int
) -> np.ndarray:
    """Fit once; then filter the series up to each origin with the orders and parameters of the fit
    part."""
    try:
        model.fit(series[: fit_until + 1])
        ahead = [model.forward(series[: t + 1], h=steps)["mean"] for t in origins]
    except Exception as error:
        raise ModelError(
            f"{name} cannot be fitted on {fit_until + 1} returns ({error}): leave it out"
        ) from error
    if not np.isfinite(ahead).all():
        raise ModelError(f"{name} gave a forecast that is no number: leave it out")
    return np.reshape(ahead, (len(origins), steps))


def boost(returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int) -> np.ndarray:
    """Gradient boosting (LightGBM) on the rows and weights of `ridge`, one model for each step; the
    same bits on every call."""
    require("boost")
    import lightgbm

    lags, target, weight = examples(returns[: fit_until + 1], steps)
    # Returns and weights near 1: the limits of the library are made for these.
    scale = np.sqrt(1 / weight.mean())
    rows = lightgbm.Dataset(lags, weight=weight * scale**2, free_raw_data=False, params=_BOOST)
    seen = np.nan_to_num(past(returns, origins, LAGS))
    ahead = np.empty((len(origins), steps))
    for step in range(steps):
        rows.set_label(target[:, step] / scale)
        model = lightgbm.train(_BOOST, rows, _ROUNDS)
        ahead[:, step] = scale * model.predict(seen, num_threads=1)
    return ahead


EXTRA_BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {"auto_arima": auto_arima, "auto_ets": auto_ets, "boost": boost}
)
