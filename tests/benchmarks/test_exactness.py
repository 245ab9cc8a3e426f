"""Every indicator of a hard series in several blocks, against each window on its own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import exactness

pytestmark = pytest.mark.slow


def test_every_column_is_within_its_tolerance_and_what_is_not_would_be_seen(
    spark_session, tmp_path
):
    grid = exactness.made(130_000)
    assert grid["run"].max() >= 8 and grid["imputed"].sum() > 100
    references = dict(exactness.reference(grid))
    found = exactness.computed(spark_session, tmp_path, grid)
    worst, nulls, beyond = exactness.compared(found, references)
    assert nulls == 0 and beyond == {}
    assert set(worst) == set(found.columns) - {"timestamp", "price", "imputed", "trend"}
    assert max(worst.values()) <= 1, worst

    found.loc[65_000, "volatility_24"] *= 1 + 3e-12
    found.loc[66_000, "macd"] = np.nan
    worst, nulls, beyond = exactness.compared(found, references)
    assert beyond == {"volatility_24": 1}
    assert worst["volatility_24"] > 1 and nulls == 1
