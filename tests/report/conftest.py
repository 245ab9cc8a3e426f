"""A random walk of 400 hours with a hole, its forecast, a training history and their metrics."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from browser import browser, example_file, opened, page, shared_page, shown  # noqa: F401

HOUR = 3_600_000
FIRST = 1_704_067_200_000  # 2024-01-01T00:00:00Z
ROWS = 400
HOLE_AFTER = 249  # the index of the last row before a hole of 48 hours


@pytest.fixture
def prices() -> pd.DataFrame:
    random = np.random.default_rng(1)
    price = 42_000 * np.exp(np.cumsum(random.normal(0, 0.004, ROWS)))
    timestamp = FIRST + HOUR * np.arange(ROWS)
    timestamp[HOLE_AFTER + 1 :] += 48 * HOUR
    frame = pd.DataFrame({"timestamp": timestamp, "price": price.astype(np.float32)})
    frame["imputed"] = np.arange(ROWS) % 100 == 50
    for window in (7, 24):
        frame[f"ma_{window}"] = random.normal(42_000, 100, ROWS)
        frame[f"volatility_{window}"] = random.uniform(0, 0.01, ROWS)
        frame.loc[: window - 1, [f"ma_{window}", f"volatility_{window}"]] = np.nan
    frame["rsi_14"] = random.uniform(0, 100, ROWS)
    frame["drawdown"] = -random.uniform(0, 0.2, ROWS)
    return frame


@pytest.fixture
def forecast(prices: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(2)
    test = prices.iloc[200:].reset_index(drop=True)
    actual = test["price"].to_numpy(np.float64)
    persistence = prices["price"].to_numpy(np.float64)[199:-1]
    predicted = random.normal(0, 0.001, len(test))
    return pd.DataFrame(
        {
            "timestamp": test["timestamp"],
            "actual": actual,
            "forecast": persistence * np.exp(predicted),
            "persistence": persistence,
            "lower": persistence * np.exp(predicted - 0.005),
            "upper": persistence * np.exp(predicted + 0.005),
            "actual_log_return": np.log(actual / persistence),
            "forecast_log_return": predicted,
        }
    )


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4],
            "loss": [1.2, 1.0, 0.95, 0.93],
            "val_loss": [1.1, 0.97, 0.99, 1.02],
            "seconds": [2.0, 1.5, 1.5, 1.5],
        }
    )


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "source": "simulated:7",
        "simulated": True,
        "coin": "bitcoin",
        "vs_currency": "usd",
        "frequency": "1h",
        "horizon": 1,
        "target": "log_return",
        "snapshot": {"prices": "000002-PRICES", "indicators": "000002-INDICATORS"},
        "run": "RUN-1",
        "span": {
            "first": "2024-01-01T00:00:00Z",
            "last": "2024-01-19T15:00:00Z",
            "rows": 12396,
            "grid_points": 400,
            "imputed": 4,
            "cuts": 1,
        },
        "latest": {
            "time": "2024-01-19T15:00:00Z",
            "price": 42_123.456,
            "change_24h_percent": -1.234,
        },
        "test": {"first": "2024-01-09T08:00:00Z", "last": "2024-01-19T15:00:00Z", "windows": 200},
        "model": {
            "rmse_usd": 210.5,
            "mae_usd": 150.25,
            "rmse_log_return": 0.0041,
            "mae_log_return": 0.0031,
            "skill": -0.0123,
            "skill_usd": -0.0133,
        },
        "persistence": {
            "rmse_usd": 208.75,
            "mae_usd": 149.5,
            "rmse_log_return": 0.004,
            "mae_log_return": 0.003,
        },
        "verdict": "Not distinguishable from 'the price stays as it is'.",
        "grades": {
            "details": {"data": "made, 400 forecasts.", "informative": "No. The e-value is 1."}
        },
        "outlook": {
            "model": "RUN-1",
            "why": "promoted: not less accurate than persistence",
            "volatility": [0.004, 0.005, None],
            "steps": [
                {
                    "step": 1,
                    "time": "2024-01-19T16:00:00Z",
                    "forecast": 42_130.5,
                    "intervals": {"80": [41_900.25, 42_360.75]},
                },
                {
                    "step": 2,
                    "time": "2024-01-19T17:00:00Z",
                    "forecast": 42_135.5,
                    "intervals": {"80": [41_800.0, 42_400.0]},
                },
                {
                    "step": 3,
                    "time": "2024-01-19T18:00:00Z",
                    "forecast": 42_140.5,
                    "intervals": {"80": [None, None]},
                },
            ],
        },
        "interval": {"level": 0.8, "coverage": 0.79},
        "next": {
            "time": "2024-01-19T16:00:00Z",
            "from_price": 42_123.456,
            "forecast": 42_130.5,
            "lower": 41_900.25,
            "upper": 42_360.75,
        },
        "training": {"epochs": 4, "best_epoch": 2, "seconds": 6.5, "windows": 280},
    }
