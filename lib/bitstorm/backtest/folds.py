"""Where each fold trains, validates and tests, in grid indexes. Pure: no data, no files."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass

from bitstorm.core.errors import DataError, UsageError
from bitstorm.core.settings import Backtest, Training


@dataclass(frozen=True)
class Fold:
    """A fold's parts as grid indexes, all inclusive; `number` counts from 1.

    Everything is fitted on the points `train_from` to `validate_until`; of these the ones after
    `train_until` are the validation part, which ends the training. The embargo lies between
    `validate_until` and `test_from`. Forecasts are made at the points `test_from` to `test_until`.
    """

    number: int
    train_from: int
    train_until: int
    validate_until: int
    test_from: int
    test_until: int

    def times_ms(self, step_ms: int) -> dict[str, int]:
        """The same as times, Unix ms UTC."""
        indexes = {name: index for name, index in vars(self).items() if name != "number"}
        return {f"{name}_ms": index * step_ms for name, index in indexes.items()}


def embargo_of(backtest: Backtest, training: Training, *, steps: int) -> int:
    """The number of steps between the fitted part and the test. Raises UsageError where the setting
    is too small: the first test window would then hold points of the fitted part."""
    least = training.look_back + max(steps, training.horizon)
    if backtest.embargo is not None and backtest.embargo < least:
        raise UsageError(
            f"backtest.embargo is {backtest.embargo}, expected at least {least} "
            f"(training.look_back {training.look_back} + the longest forecast, "
            f"{least - training.look_back} steps): raise it, or leave it empty"
        )
    return least if backtest.embargo is None else backtest.embargo


def make_folds(
    first: int, last: int, backtest: Backtest, training: Training, *, steps: int, warm_up: int
) -> list[Fold]:
    """The folds of a series with the grid indexes `first` to `last`.

    The origins of the newest `backtest.test_share` of the time, up to the last one with `steps`
    outcomes, are cut into `backtest.folds` test parts of equal length (to one step). A fitted part
    begins at `first`, or with the scheme `sliding` has the length of the first one. Its validation
    part is as large, relative to the training part, as the one of `train`. `warm_up` is the number
    of points before the first possible target. Raises DataError, with the numbers, where the series
    is too short, and UsageError as `embargo_of`.
    """
    embargo = embargo_of(backtest, training, steps=steps)

    def tried(points: int) -> list[Fold] | None:
        return _cut(first, points, backtest, training, steps, embargo, warm_up)

    points = last - first + 1
    found = tried(points)
    if found is not None:
        return found
    most = points
    while tried(most) is None:
        most *= 2
    enough = bisect.bisect_left(range(most), True, lo=points, key=lambda n: tried(n) is not None)
    raise DataError(
        f"found {points} points, expected at least {enough} without a hole for {backtest.folds} "
        f"folds with test_share {backtest.test_share:g}, an embargo of {embargo} steps, and "
        f"{warm_up} points before the first target: collect more, or lower backtest.folds, "
        "training.look_back or forecast.steps"
    )


def _cut(
    first: int,
    points: int,
    backtest: Backtest,
    training: Training,
    steps: int,
    embargo: int,
    warm_up: int,
) -> list[Fold] | None:
    """The folds of so many points; None where they do not fit."""
    # Rounded as the split of `train`.
    begin = first + round((points - 1) * (1 - backtest.test_share))
    origins = first + points - steps - begin
    if origins < backtest.folds:
        return None
    edges = [begin + number * origins // backtest.folds for number in range(backtest.folds + 1)]
    share = training.validation_share / (training.train_share + training.validation_share)
    folds = []
    for number, (test_from, after) in enumerate(itertools.pairwise(edges), start=1):
        train_from = first if backtest.scheme == "expanding" else first + test_from - begin
        validate_until = test_from - 1 - embargo
        train_until = validate_until - round((validate_until - train_from + 1) * share)
        if not train_from + warm_up <= train_until < validate_until:
            return None
        folds.append(Fold(number, train_from, train_until, validate_until, test_from, after - 1))
    return folds
