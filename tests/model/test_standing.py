"""Early stopping and the best epoch, against the rule read epoch by epoch."""

from __future__ import annotations

import json
import math
import random

import pytest

from bitstorm.model.standing import Epoch, Standing


def epoch(number: int, val_loss: float, loss: float = 1.0) -> Epoch:
    return Epoch(number, loss, val_loss, seconds=2.0, waited=0.5)


def standing(*val_losses: float) -> Standing:
    found = Standing()
    for number, loss in enumerate(val_losses, 1):
        found = found.after(epoch(number, loss))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_it_goes_on_until_the_best_is_patience_epochs_ago(seed):
    chance = random.Random(seed)
    losses = [chance.choice([0.5, 0.6, 0.7, 0.8]) for _ in range(12)]
    patience = chance.randrange(1, 5)
    # The rule as Keras' EarlyStopping states it: a counter, reset by an improvement.
    best, wait, ended = math.inf, 0, None
    for number, loss in enumerate(losses, 1):
        wait = 0 if loss < best else wait + 1
        best = min(best, loss)
        if wait >= patience:
            ended = number
            break
    for number in range(1, len(losses) + 1):
        goes_on = standing(*losses[:number]).goes_on(epochs=12, patience=patience)
        expected = number < (ended or 12)
        assert goes_on == expected
        if not goes_on:
            break


def test_the_first_of_equal_epochs_is_the_best():
    found = standing(0.7, 0.5, 0.5)
    assert (found.best_epoch, found.best_loss, found.wait, found.epochs) == (2, 0.5, 1, 3)
    assert (found.seconds, found.waited) == (6.0, 1.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_epoch_that_is_no_number_is_never_the_best_and_is_the_last(bad):
    for last in (epoch(2, bad), epoch(2, 0.1, loss=bad)):
        found = standing(0.7).after(last)
        assert found.best_epoch == 1
        assert not found.goes_on(epochs=9, patience=9)
    assert standing(bad).best_epoch == 0


def test_it_comes_back_from_json_bit_for_bit():
    found = standing(0.1 + 0.2, 1 / 3)
    record = json.loads(json.dumps(found.to_json()))
    assert Standing.from_json(record) == found
    assert (record["epoch"], record["best_epoch"], record["wait"]) == (2, 1, 1)
    assert found.to_csv().splitlines()[1] == "1,1.0,0.30000000000000004,2.0,0.5"
