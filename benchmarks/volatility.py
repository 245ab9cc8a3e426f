"""Forecasts of the realised variance of the next 24 hours: QLIKE of each model on the second half
of a series of hours, and its difference to log-HAR and GARCH-t with a 95 % bootstrap interval.

The hours are those of Coinbase where the file is there, else a simulated market.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Outcome
from bitstorm.evaluation import volatility
from bitstorm.evaluation.volatility_features import HOUR_MS, future_variance
from bitstorm.model import volatility_network

ROWS = 13_165
FILE = "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz"
PATH = Path(__file__).resolve().parents[1].parent / "shared" / "data" / FILE


def run(rows: int) -> Outcome:
    """The newest `rows` hours; a model's forecasts are strictly causal."""
    returns, first_ms, source = hours(rows)
    start = len(returns) // 2
    forecasts: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name in (*volatility.NAMES, "lstm"):
        began = time.perf_counter()
        if name == "lstm":
            found = volatility_network.forecast_variance(returns, first_ms=first_ms, start=start)
        else:
            found = volatility.forecast_variance(name, returns, first_ms=first_ms)
        forecasts[name], seconds[name] = found, time.perf_counter() - began
    both = volatility.geometric_mean(forecasts["recipe_a"], forecasts["lstm"])
    forecasts["lstm_and_recipe_a"] = both
    actual = future_variance(returns, horizon=volatility.HORIZON)
    table = volatility.scores(
        {name: values[start:] for name, values in forecasts.items()}, actual[start:]
    )
    by_name = {score.model: score.qlike for score in table}
    ratios = {f"{name} / log_har": loss / by_name["log_har"] for name, loss in by_name.items()}
    notes = {
        "series": f"{source}; QLIKE on {table[0].count:,} hours of the second half",
        "QLIKE": {name: round(loss, 4) for name, loss in by_name.items()},
    }
    for baseline in ("log_har", "garch_t"):
        notes[f"less {baseline}"] = {
            score.model: f"{d.mean:+.4f} [{d.lower:+.4f}, {d.upper:+.4f}]"
            for score in table
            if (d := score.against.get(baseline))
        }
    return Outcome("volatility", len(returns), seconds, ratios, notes)


def hours(rows: int) -> tuple[np.ndarray, int, str]:
    """Log returns, the time of the first in ms UTC, and their source."""
    if not PATH.exists():
        return _simulated(rows), 0, "a simulated market"
    import pandas as pd

    table = pd.read_csv(PATH).iloc[-rows:]
    returns = np.diff(np.log(table["close"].to_numpy()), prepend=np.nan)
    # A close belongs to the end of its hour.
    return returns, int(table["timestamp_s"].iloc[0]) * 1000 + HOUR_MS, "Coinbase"


def _simulated(rows: int) -> np.ndarray:
    """GARCH(1,1) with t shocks, where falls raise the variance more than rises."""
    random = np.random.default_rng(1)
    shocks = random.standard_t(5, rows) * np.sqrt(3 / 5)
    returns, variance = np.empty(rows), 1e-4
    for t in range(rows):
        returns[t] = np.sqrt(variance) * shocks[t]
        variance = 2e-6 + (0.12 if shocks[t] < 0 else 0.08) * returns[t] ** 2 + 0.88 * variance
    return returns
