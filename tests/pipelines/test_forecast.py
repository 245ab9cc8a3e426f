"""From prices to a forecast: it learns what can be learnt, and says so only then."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.time import iso
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.train import train
from bitstorm.store import petastorm_io, snapshots
from landed import HOUR
from pipelines.priced import (
    START,
    VALIDATE_UNTIL,
    impatient,
    points_of,
    published,
    random_walk,
    small,
    wave,
    with_prices,
)

pytestmark = pytest.mark.slow

COLUMNS = [
    "timestamp",
    "actual",
    "forecast",
    "persistence",
    "lower",
    "upper",
    "actual_log_return",
    "forecast_log_return",
]


def written(context) -> tuple[pd.DataFrame, dict]:
    reports = context.workspace.reports
    metrics = json.loads((reports / "metrics.json").read_text())
    return pd.read_csv(reports / "forecast.csv", float_precision="round_trip"), metrics


def assert_metrics_follow(table: pd.DataFrame, metrics: dict, *, horizon: int) -> None:
    """Every number of the test part, again from the rows of forecast.csv."""
    ours = np.log(table.forecast) - np.log(table.actual)
    theirs = np.log(table.persistence) - np.log(table.actual)
    expected = {
        "model": {
            "rmse_usd": math.sqrt(((table.forecast - table.actual) ** 2).mean()),
            "mae_usd": (table.forecast - table.actual).abs().mean(),
            "rmse_log_return": math.sqrt((ours**2).mean()),
            "mae_log_return": ours.abs().mean(),
            "skill": 1 - (ours**2).mean() / (theirs**2).mean(),
            "skill_usd": 1
            - ((table.forecast - table.actual) ** 2).mean()
            / ((table.persistence - table.actual) ** 2).mean(),
        },
        "persistence": {
            "rmse_usd": math.sqrt(((table.persistence - table.actual) ** 2).mean()),
            "mae_usd": (table.persistence - table.actual).abs().mean(),
            "rmse_log_return": math.sqrt((theirs**2).mean()),
            "mae_log_return": theirs.abs().mean(),
        },
    }
    for who, numbers in expected.items():
        assert set(metrics[who]) == set(numbers)
        for name, value in numbers.items():
            assert metrics[who][name] == pytest.approx(value, rel=1e-9, abs=1e-12), (who, name)

    inside = (table.actual >= table.lower) & (table.actual <= table.upper)
    assert metrics["interval"]["coverage"] == pytest.approx(inside.mean())
    assert metrics["test"] == {
        "first": iso(int(table.timestamp.iloc[0])),
        "last": iso(int(table.timestamp.iloc[-1])),
        "windows": len(table),
    }


def assert_rows_follow(
    table: pd.DataFrame, metrics: dict, prices: np.ndarray, *, horizon: int
) -> None:
    """Every row of forecast.csv, against the prices that were put in."""
    assert list(table.columns) == COLUMNS
    place = ((table.timestamp - START) // HOUR).to_numpy()
    assert (table.timestamp == START + place * HOUR).all()
    assert table.timestamp.is_monotonic_increasing
    assert table.timestamp.is_unique
    stored = prices.astype(np.float32).astype(np.float64)
    assert (table.actual == stored[place]).all()
    assert (table.persistence == stored[place - horizon]).all()
    assert table.actual_log_return.to_numpy() == pytest.approx(
        np.log(stored[place] / stored[place - horizon]), abs=1e-15
    )
    assert table.forecast_log_return.to_numpy() == pytest.approx(
        np.log(table.forecast / table.persistence).to_numpy(), abs=1e-15
    )
    # One interval in log return, made from the validation part, around every forecast.
    for bound, name in ((table.lower, "lower"), (table.upper, "upper")):
        width = np.log(bound / table.forecast)
        assert width.max() - width.min() < 1e-12
        following = metrics["next"]
        assert math.log(following[name] / following["forecast"]) == pytest.approx(width.iloc[0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Workspaces that several tests start from; a copy is a test's own."""
    made: dict = {}

    def copy(name: str, make):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            make(made[name])
        target = tmp_path_factory.mktemp(f"copy-{name}")
        shutil.copytree(made[name], target, dirs_exist_ok=True)
        return target

    return copy


@pytest.fixture
def learnt(spark_session, folders):
    """A run on the wave, with its forecast."""

    def make(root):
        context = with_prices(small(root), wave())
        train(context)
        forecast(impatient(context, "tensorflow"))

    return small(folders("wave", make))


@pytest.fixture
def walked(spark_session, folders):
    """A random walk, with its indicators."""
    return folders("walk", lambda root: with_prices(small(root), random_walk(11)))


def test_a_predictable_series_is_forecast_and_called_better(learnt):
    table, metrics = written(learnt)
    assert_rows_follow(table, metrics, wave(), horizon=1)
    assert_metrics_follow(table, metrics, horizon=1)
    assert len(table) == 90
    assert table.timestamp.iloc[0] == VALIDATE_UNTIL + HOUR
    assert metrics["model"]["skill"] > 0.5
    assert metrics["grades"]["more_accurate"] and metrics["grades"]["informative"]
    assert metrics["verdict"] == metrics["grades"]["headline"]
    assert metrics["outlook"]["model"] == metrics["run"]

    last = float(np.float32(wave()[-1]))
    assert metrics["next"]["time"] == iso(START + 601 * HOUR)
    assert metrics["next"]["from_price"] == last
    assert metrics["latest"]["price"] == last
    assert metrics["latest"]["change_24h_percent"] == pytest.approx(
        100 * (last / np.float32(wave()[-25]) - 1)
    )
    # The wave's next return, from the recurrence that made it.
    coming = 0.01 * math.cos(2 * math.pi * 601 / 7.3)
    said = math.log(metrics["next"]["forecast"] / last)
    assert said == pytest.approx(coming, abs=0.005)
    # The same forecast, and 23 steps more, are in the log.
    logged = petastorm_io.read_frame(snapshots.required(learnt.workspace.forecasts))
    assert logged["timestamp"].tolist() == [START + (600 + n) * HOUR for n in range(1, 25)]
    assert logged["forecast"].iloc[0] == metrics["next"]["forecast"]
    for bound in ("lower", "upper"):
        assert logged[f"{bound}_80"].iloc[0] == pytest.approx(metrics["next"][bound], rel=1e-12)
    returns = np.log(logged["forecast"] / logged["origin_price"]).diff()[1:5]
    wave_returns = 0.01 * np.cos(2 * np.pi * np.arange(602, 606) / 7.3)
    assert returns.to_numpy() == pytest.approx(wave_returns, abs=0.005)
    assert set(logged["run"]) == {metrics["run"]}
    assert set(logged["indicators"]) == {metrics["snapshot"]["indicators"]}
    assert metrics["span"] == {
        "first": iso(START),
        "last": iso(START + 600 * HOUR),
        "rows": 601,
        "grid_points": 601,
        "imputed": 0,
        "cuts": 0,
    }


def test_newer_points_lengthen_the_test_part_up_to_a_cut(learnt):
    before, _ = written(learnt)
    prices = wave()
    # Five more hours, then nothing for two days, then too few points for a window.
    steps = np.r_[601:606, 654:658]
    with_prices(learnt, np.concatenate([prices[1:6], prices[:4]]), steps=steps)
    found = forecast(learnt)
    table, metrics = written(learnt)
    assert len(table) == 95
    pd.testing.assert_frame_equal(table.iloc[:90], before, check_exact=True)
    assert table.persistence.iloc[90] == np.float32(prices[600])
    assert table.actual.iloc[90:].tolist() == prices[1:6].astype(np.float32).tolist()
    assert metrics["test"]["last"] == iso(START + 605 * HOUR)
    assert metrics["span"]["cuts"] == 1
    assert metrics["next"] == {
        "time": iso(START + 658 * HOUR),
        "from_price": float(np.float32(prices[3])),
        "forecast": None,
        "lower": None,
        "upper": None,
    }
    assert math.isnan(found.metrics["next"]["forecast"])


def test_a_random_walk_with_several_features_is_not_beaten(walked):
    context = small(
        walked, "training.horizon=3", "training.features=[log_return, rsi_14, ma_3, trend]"
    )
    trained = train(context)
    # rsi_14 begins at step 14: windows end at 21 to 597, their targets at 24 to 600.
    assert (trained.windows, trained.validation_windows) == (397, 90)
    forecast(context)
    table, metrics = written(context)
    assert_rows_follow(table, metrics, random_walk(11), horizon=3)
    assert_metrics_follow(table, metrics, horizon=3)
    assert len(table) == 90
    assert metrics["horizon"] == 3
    assert metrics["next"]["time"] == iso(START + 603 * HOUR)
    assert not metrics["grades"]["more_accurate"]


def test_a_network_on_prices_is_held_to_the_same_persistence(walked):
    context = small(walked, "training.target=price", "training.epochs=3")
    run = train(context)
    forecast(context)
    table, metrics = written(context)
    assert_rows_follow(table, metrics, random_walk(11), horizon=1)
    assert_metrics_follow(table, metrics, horizon=1)
    assert not metrics["grades"]["more_accurate"]
    record = json.loads((context.workspace.checkpoints / run.run / "run.json").read_text())
    known = random_walk(11)[:421].astype(np.float32).astype(np.float64)
    learnt = known[8:]  # the first target follows eight prices, but all of them are fitted on
    for scale, series in (
        (record["scaler"]["features"]["price"], known),
        (record["scaler"]["target"], known[1:]),
    ):
        assert scale["shift"] == series.min()
        assert scale["scale"] == series.max() - series.min()
    assert record["windows"]["training"] == len(learnt)


def test_without_a_run_the_user_is_told_to_train(walked):
    with pytest.raises(ModelError, match="run `bitstorm train` first"):
        forecast(impatient(small(walked)))


def test_a_run_that_does_not_fit_is_refused_before_tensorflow(learnt):
    published(learnt, points_of(wave()), frequency="2h")
    with pytest.raises(ModelError, match=r"trained on steps of 1h, but the indicators have .* 2h"):
        forecast(impatient(learnt))
    published(learnt, points_of(wave()[:511]))
    with pytest.raises(DataError, match="the indicators end at 2021-01-22T06:00:00Z, expected"):
        forecast(impatient(learnt))
    published(learnt, points_of(wave()))
    path = next(learnt.workspace.checkpoints.glob("*/run.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "features": ["ma_99"]}))
    with pytest.raises(ModelError, match="trained on ma_99, which the indicators don't have"):
        forecast(impatient(learnt))
    path.write_text(json.dumps({**record, "settings": {**record["settings"], "older": 1}}))
    with pytest.raises(ModelError, match=r"is not of this version .*: train again"):
        forecast(impatient(learnt))


def test_a_run_with_a_setting_of_the_past_still_forecasts(learnt):
    _, before = written(learnt)
    path = next(learnt.workspace.checkpoints.glob("*/run.json"))
    record = json.loads(path.read_text())
    record["settings"]["deadline_seconds"] = 300.0
    path.write_text(json.dumps(record))
    forecast(impatient(learnt, "tensorflow"))
    assert written(learnt)[1] == before
