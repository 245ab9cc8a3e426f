"""Training through real snapshots: what it writes, what it refuses, and that it never looks on."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bitstorm.core.errors import DataError, SnapshotMissing
from bitstorm.core.time import iso
from bitstorm.pipelines.train import train
from pipelines.priced import (
    TRAIN_UNTIL,
    VALIDATE_UNTIL,
    impatient,
    points_of,
    published,
    random_walk,
    small,
    wave,
)

pytestmark = pytest.mark.slow


def losses(context, run: str) -> list[tuple[str, str]]:
    """(loss, val_loss) by epoch as the text of the file: equal only when every bit is."""
    with (context.workspace.checkpoints / run / "history.csv").open() as stream:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(stream)]


def record(context, run: str) -> dict:
    return json.loads((context.workspace.checkpoints / run / "run.json").read_text())


def test_prices_of_the_test_part_change_no_bit_of_the_training(spark_session, tmp_path):
    points = points_of(random_walk(1))
    context = published(small(tmp_path / "first", "training.epochs=2"), points)
    first = train(context)
    # The same prices up to the end of the validation part, others from there on.
    altered = random_walk(1)
    altered[511:] *= np.linspace(1.5, 3, len(altered) - 511)
    other_context = published(small(tmp_path / "other", "training.epochs=2"), points_of(altered))
    other = train(other_context)

    assert losses(context, first.run) == losses(other_context, other.run)
    ours, theirs = record(context, first.run), record(other_context, other.run)
    assert ours["indicators"] != theirs["indicators"]
    for key in ("scaler", "split", "windows", "features"):
        assert ours[key] == theirs[key]
    assert ours["fitted"]["best_validation_loss"] == theirs["fitted"]["best_validation_loss"]

    # And these are the right ones, from the prices as they are stored: float32.
    assert ours["split"] == {"train_until_ms": TRAIN_UNTIL, "validate_until_ms": VALIDATE_UNTIL}
    price = random_walk(1).astype(np.float32).astype(np.float64)
    returns = np.log(price[1:] / price[:-1])[:420]
    scale = ours["scaler"]["features"]["log_return"]
    assert scale["shift"] == pytest.approx(returns.mean(), rel=1e-9)
    assert scale["scale"] == pytest.approx(returns.std(), rel=1e-9)
    assert ours["scaler"]["target"]["shift"] == 0
    assert ours["scaler"]["target"]["scale"] == pytest.approx(math.sqrt((returns**2).mean()))
    # Targets at the steps 9 (eight returns before it) to 420, 421 to 510, 511 to 600.
    assert ours["windows"] == {"training": 412, "validation": 90, "test": 90}
    assert (first.windows, first.validation_windows) == (412, 90)

    folder = context.workspace.checkpoints / first.run
    assert {p.name for p in folder.iterdir()} == {"best.keras", "history.csv", "run.json"}
    assert ours["settings"]["look_back"] == 8
    assert ours["frequency"] == "1h"
    # The blocks go with their training.
    assert list((context.workspace.cache / "blocks").iterdir()) == []


def test_without_indicators_the_user_is_told_what_to_run(tmp_path):
    with pytest.raises(SnapshotMissing, match="run `bitstorm indicators` first"):
        train(impatient(small(tmp_path)))


@pytest.mark.parametrize(
    ("points", "settings", "enough"),
    [
        # Eight returns need nine points; the target is at step 9, and 0.7 * 12 is less.
        (12, (), 14),
        (88, ("training.look_back=60",), 89),
        (4, ("training.look_back=1",), 5),
        (40, ("training.horizon=25",), 49),
    ],
)
def test_too_few_points_are_refused_before_spark_starts(tmp_path, points, settings, enough):
    context = published(small(tmp_path, *settings), points_of(random_walk(2)[:points]))
    expected = f"found {points} points .*2021-01-01T00:00:00Z to .* at least {enough} without"
    with pytest.raises(DataError, match=expected):
        train(impatient(context))


@pytest.mark.parametrize(
    "settings", [("training.look_back=8",), ("training.target=price", "training.horizon=5")]
)
def test_as_many_points_as_are_asked_for_are_enough(spark_session, tmp_path, settings):
    context = small(tmp_path, "training.epochs=1", "training.units=2", *settings)
    few = published(context, points_of(random_walk(2)[:5]))
    with pytest.raises(DataError) as refusal:
        train(impatient(few))
    enough = int(str(refusal.value).split("at least ")[1].split()[0])
    trained = train(published(context, points_of(random_walk(2)[:enough])))
    assert trained.windows >= 1
    assert trained.validation_windows >= 1


def test_a_part_without_a_window_is_refused_with_the_counts(spark_session, tmp_path):
    # 100 points in a row, then a hole, then pieces of 5: too short for eight returns.
    steps = np.concatenate(
        [np.arange(100), *[np.arange(start, start + 5) for start in range(110, 150, 10)]]
    )
    prices = random_walk(3)[: len(steps)]
    context = published(small(tmp_path), points_of(prices, steps=steps))
    with pytest.raises(DataError, match="found 91 training, 0 validation, 0 test windows") as error:
        train(impatient(context, "spark"))
    assert "8 consecutive points with log_return" in str(error.value)
    assert not context.workspace.checkpoints.exists()


def test_carried_forward_prices_are_no_targets(tmp_path):
    points = points_of(random_walk(3)[:200])
    points.loc[170:, "imputed"] = True  # all of the test part
    context = published(small(tmp_path), points)
    with pytest.raises(DataError, match=r"found 30 imputed points of 200.* 0 observed in the test"):
        train(impatient(context))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_feature_that_is_not_finite_is_refused_before_spark(tmp_path, value):
    points = points_of(random_walk(3)[:200])
    drawdown = np.linspace(0, -0.5, 200)
    drawdown[[150, 190]] = value
    # So that a NaN stays one and is no null.
    kept = pa.array(drawdown, from_pandas=False)
    points["drawdown"] = pd.Series(pd.arrays.ArrowExtensionArray(kept))
    context = small(tmp_path, "training.features=[log_return, drawdown]")
    place = iso(int(points["timestamp"].iloc[150]))
    with pytest.raises(DataError, match=f"drawdown .* at 2 of 200 points, the first at {place}"):
        train(impatient(published(context, points)))


@pytest.mark.parametrize(
    ("target", "named"),
    [("log_return", "log_return is 0 at all 1"), ("price", "price is 7.3 at all 1")],
)
def test_a_price_that_never_moves_is_refused(spark_session, tmp_path, target, named):
    context = small(tmp_path, f"training.target={target}")
    with pytest.raises(DataError, match=named):
        train(impatient(published(context, points_of(np.full(200, 7.3))), "spark"))


def test_an_indicator_that_has_no_value_yet_is_refused(spark_session, tmp_path):
    context = small(tmp_path, "training.features=[log_return, macd_signal]")
    with pytest.raises(DataError, match="macd_signal has no value at any of 1"):
        train(impatient(published(context, points_of(random_walk(3)[:200])), "spark"))


def test_unknown_features_are_named_before_spark_starts(tmp_path):
    context = small(tmp_path, "training.features=[price, ma_5, month]")
    with pytest.raises(DataError, match="names ma_5, month, which the indicators don't have"):
        train(impatient(published(context, points_of(wave()[:200]))))


def test_a_training_on_another_snapshot_has_its_windows(spark_session, tmp_path):
    context = published(small(tmp_path, "training.epochs=2"), points_of(random_walk(4)[:500]))
    first = train(context)
    other = train(published(context, points_of(random_walk(4))))
    assert other.indicators != first.indicators
    assert other.windows > first.windows


def test_a_training_that_fails_leaves_no_blocks(spark_session, tmp_path):
    context = published(small(tmp_path), points_of(np.full(200, 7.3)))
    with pytest.raises(DataError):
        train(context)
    assert list((context.workspace.cache / "blocks").iterdir()) == []
