"""The pruner of a task, against medians by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.backtest.trial import Pruned, Pruner
from bitstorm.model.training import Progress

EPOCHS, WARM_UP = 4, 2
LOSSES = st.lists(st.floats(0.1, 2), min_size=EPOCHS, max_size=EPOCHS)


def complete_trial(losses):
    from optuna.trial import create_trial

    return create_trial(value=min(losses), intermediate_values=dict(enumerate(losses, start=1)))


def epochs_until_pruned(pruner: Pruner, losses) -> int | None:
    for epoch, loss in enumerate(losses, start=1):
        try:
            pruner.follow(Progress(epoch, EPOCHS, 9, 10, 1.0, None, 1.0, 1.0))
            pruner.follow(Progress(epoch, EPOCHS, 10, 10, 1.0, loss, 1.0, 0.0))
        except Pruned:
            return epoch
    return None


@settings(deadline=None, max_examples=40)
@given(complete=st.lists(LOSSES, max_size=8), losses=LOSSES)
def test_a_trial_behind_the_median_ends(complete, losses):
    # Optuna waits for five complete trials.
    expected = None
    for epoch in range(WARM_UP, EPOCHS):
        behind = len(complete) >= 5 and min(losses[:epoch]) > statistics.median(
            one[epoch - 1] for one in complete
        )
        if behind and expected is None:
            expected = epoch
    pruner = Pruner([complete_trial(one) for one in complete], WARM_UP)
    assert epochs_until_pruned(pruner, losses) == expected
    assert pruner.losses == losses[:expected]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial(bad):
    pruner = Pruner([], WARM_UP)
    assert epochs_until_pruned(pruner, [0.5, bad, 0.4]) == 2
    assert pruner.losses == [0.5]
