"""Errors by model, step and fold, against loops over the rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.backtest.scores import pooled, scores, standing, summary

MODELS = ("network", "persistence", "drift")


def frame(seed: int, origins: int, steps: int, *, missing: float = 0.2) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    n = origins * steps
    origin_price = np.repeat(random.uniform(100, 200, origins), steps)
    made = {
        "origin_timestamp": np.repeat(np.arange(origins) * 3_600_000, steps),
        "step": np.tile(np.arange(1, steps + 1, dtype=np.int32), origins),
        "origin_price": origin_price,
        "actual": origin_price * np.exp(random.normal(0, 0.01, n)),
        **{name: origin_price * np.exp(random.normal(0, 0.002, n)) for name in MODELS},
    }
    made["persistence"] = origin_price.copy()
    for name in ("actual", "drift"):
        made[name][random.random(n) < missing] = np.nan
    return pd.DataFrame(made)


def by_loop(rows: pd.DataFrame, model: str, step: int | None) -> dict[str, float]:
    usd, logs, still, still_usd = [], [], [], []
    for row in rows.to_dict("records"):
        if any(math.isnan(row[name]) for name in ("actual", *MODELS)):
            continue
        if step in (None, row["step"]):
            usd.append(row[model] - row["actual"])
            logs.append(math.log(row[model] / row["actual"]))
            still.append(math.log(row["origin_price"] / row["actual"]))
            still_usd.append(row["origin_price"] - row["actual"])

    def mean_square(values):
        return math.fsum(v * v for v in values) / len(values)

    return {
        "rows": len(usd),
        "rmse_usd": math.sqrt(mean_square(usd)),
        "mae_usd": math.fsum(map(abs, usd)) / len(usd),
        "rmse_log_return": math.sqrt(mean_square(logs)),
        "mae_log_return": math.fsum(map(abs, logs)) / len(logs),
        "skill": 1 - mean_square(logs) / mean_square(still),
        "skill_usd": 1 - mean_square(usd) / mean_square(still_usd),
    }


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(20, 40)), min_size=1, max_size=3))
def test_scores_and_their_pool_equal_loops_over_the_rows(shapes):
    frames = [frame(seed, origins, 3) for seed, origins in shapes]
    found = [scores(one) for one in frames]
    every = pooled(found)
    for model in MODELS:
        for part, step in (("all", None), ("3", 3)):
            for one, rows in zip(found, frames, strict=True):
                assert one[model][part] == pytest.approx(by_loop(rows, model, step), abs=1e-12)
            expected = by_loop(pd.concat(frames), model, step)
            assert every[model][part] == pytest.approx(expected, abs=1e-12)


def test_a_summary_has_the_spread_over_the_folds():
    found = [scores(frame(seed, 30, 2)) for seed in (1, 2, 3)]
    cell = summary(found)["network"]["2"]
    skills = [fold["network"]["2"]["skill"] for fold in found]
    assert cell["folds"] == [fold["network"]["2"] for fold in found]
    assert cell["mean"]["skill"] == pytest.approx(np.mean(skills))
    assert cell["sd"]["skill"] == pytest.approx(np.std(skills, ddof=1))
    assert summary(found[:1])["network"]["2"]["sd"]["skill"] is None

    place = standing(summary(found)["network"])
    every = [fold["network"]["all"]["skill"] for fold in found]
    assert (place.worst_fold, place.worst_skill) == (1 + int(np.argmin(every)), min(every))
    assert place.rmse_step_1 == pooled(found)["network"]["1"]["rmse_log_return"]
    assert (place.skill_step_1, place.skill) == (
        pooled(found)["network"]["1"]["skill"], pooled(found)["network"]["all"]["skill"],
    )  # fmt: skip


def test_a_fold_without_a_known_outcome_changes_no_pool():
    empty = frame(4, 20, 2, missing=1.0)
    known = scores(frame(5, 20, 2))
    assert scores(empty)["network"]["all"]["rows"] == 0
    assert math.isnan(scores(empty)["network"]["1"]["skill"])
    assert pooled([known, scores(empty)]) == pooled([known])
