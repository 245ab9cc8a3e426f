"""Two frames of indicators, held against each other as far as each column may be off."""

from __future__ import annotations

import numpy as np
import pandas as pd

# No value is taken for smaller than this when its error is judged.
FLOOR = {"log_return": 1e-6, "volatility": 1e-6}


def assert_equal(
    found: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-9, *, unit: float = 1.0
) -> None:
    """`unit` is what 1e-12 of the price, which MACD may be off by, is multiplied with."""
    for name in expected.columns:
        ours = found[name].astype("float64").to_numpy()
        theirs = expected[name].astype("float64").to_numpy()
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=f"nulls of {name}")
        floor = next((f for start, f in FLOOR.items() if name.startswith(start)), 1e-9)
        allowed = tolerance * np.maximum(np.abs(theirs), floor)
        if name.startswith("macd"):
            allowed = unit * 1e-12 * found["price"].astype("float64").to_numpy()
        apart = (np.abs(ours - theirs) - allowed)[~np.isnan(theirs)]
        worst = np.max(np.asarray(apart), initial=-np.inf)
        assert worst <= 0, f"{name} is off by {worst:.3g} more than allowed"
