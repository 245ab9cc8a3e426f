"""Folds in time: no test window or outcome touches what was fitted, and the folds tile the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.backtest.folds import Fold, embargo_of, make_folds
from bitstorm.core.errors import DataError, UsageError
from bitstorm.core.settings import Backtest, Training

SHARES = st.floats(0.05, 0.9)


@st.composite
def series(draw):
    """The arguments of `make_folds`; its series is often too short."""
    training = Training(
        look_back=draw(st.integers(1, 80)),
        horizon=draw(st.integers(1, 30)),
        train_share=draw(st.floats(0.05, 0.6)),
        validation_share=draw(st.floats(0.05, 0.35)),
    )
    steps = draw(st.integers(1, 48))
    least = training.look_back + max(steps, training.horizon)
    backtest = Backtest(
        folds=draw(st.integers(1, 9)),
        scheme=draw(st.sampled_from(["expanding", "sliding"])),
        test_share=draw(SHARES),
        embargo=draw(st.none() | st.integers(least, least + 50)),
    )
    first = draw(st.integers(-1_000, 500_000))
    warm_up = training.look_back + training.horizon + draw(st.integers(0, 200))
    points = draw(st.integers(1, 4_000))
    return first, first + points - 1, backtest, training, steps, warm_up


def made(first, last, backtest, training, steps, warm_up) -> list[Fold]:
    return make_folds(first, last, backtest, training, steps=steps, warm_up=warm_up)


@given(series())
def test_folds_keep_the_embargo_and_tile_the_test(arguments):
    first, last, backtest, training, steps, warm_up = arguments
    try:
        folds = made(*arguments)
    except DataError:
        return
    embargo = embargo_of(backtest, training, steps=steps)
    assert [fold.number for fold in folds] == list(range(1, backtest.folds + 1))
    for fold in folds:
        # The oldest price of the first test window, and the newest outcome fitted on.
        assert fold.test_from - training.look_back > fold.validate_until
        assert fold.test_from - fold.validate_until - 1 == embargo
        assert embargo >= training.look_back + max(steps, training.horizon)
        assert first <= fold.train_from
        assert fold.train_from + warm_up <= fold.train_until < fold.validate_until
        assert fold.test_from <= fold.test_until
    begin = first + round((last - first) * (1 - backtest.test_share))
    tested = [n for fold in folds for n in range(fold.test_from, fold.test_until + 1)]
    assert tested == list(range(begin, last - steps + 1))
    lengths = [fold.test_until - fold.test_from for fold in folds]
    assert max(lengths) - min(lengths) <= 1
    fitted = [fold.validate_until - fold.train_from + 1 for fold in folds]
    if backtest.scheme == "sliding":
        assert len(set(fitted)) == 1
    else:
        assert {fold.train_from for fold in folds} == {first}
    share = training.validation_share / (training.train_share + training.validation_share)
    for fold, length in zip(folds, fitted, strict=True):
        assert fold.validate_until - fold.train_until == round(length * share)


@given(series())
def test_a_refusal_names_a_length_that_is_enough(arguments):
    first, last, *others = arguments
    try:
        made(*arguments)
    except DataError as error:
        words = str(error).split()
        assert int(words[1]) == last - first + 1
        enough = int(words[words.index("least") + 1])
        assert len(made(first, first + enough - 1, *others)) == others[0].folds
        with pytest.raises(DataError):
            made(first, first + enough - 2, *others)


def test_the_folds_of_a_hundred_points_are_these():
    training = Training(look_back=4, train_share=0.6, validation_share=0.2)
    common = {"steps": 3, "warm_up": 5}
    # 23 and 24 origins, the last one with three later points. The embargo is 4 + 3.
    assert make_folds(0, 99, Backtest(folds=2), training, **common) == [
        Fold(1, 0, 31, 42, 50, 72),
        Fold(2, 0, 49, 65, 73, 96),
    ]
    sliding = Backtest(folds=2, scheme="sliding", embargo=10)
    assert make_folds(0, 99, sliding, training, **common) == [
        Fold(1, 0, 29, 39, 50, 72),
        Fold(2, 23, 52, 62, 73, 96),
    ]


def test_an_embargo_below_a_window_and_a_forecast_is_refused():
    with pytest.raises(UsageError, match=r"embargo is 83, expected at least 84 .*60 .* 24 steps"):
        make_folds(0, 9_000, Backtest(embargo=83), Training(), steps=24, warm_up=61)
    assert embargo_of(Backtest(embargo=84), Training(), steps=24) == 84
    assert embargo_of(Backtest(), Training(horizon=30), steps=24) == 90
