"""Trailing windows in numpy against each window on its own, in long double."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.indicators.kernel import rolling_moments


def one_by_one(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    mean, squares = np.full(len(values), np.nan), np.full(len(values), np.nan)
    exact = values.astype(np.longdouble)
    for end in range(width, len(values) + 1):
        window = exact[end - width : end]
        mean[end - 1] = window.mean()
        squares[end - 1] = ((window - window.mean()) ** 2).sum()
    return mean, squares


def assert_exact(values: np.ndarray, width: int) -> None:
    mean, squares = rolling_moments(values, width)
    expected_mean, expected_squares = one_by_one(values, width)
    largest = np.nanmax(np.abs(values), initial=0.0)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12, atol=1e-15 * largest)
    # The deviation: half the relative error of its square.
    np.testing.assert_allclose(
        np.sqrt(squares), np.sqrt(expected_squares), rtol=1e-12, atol=1e-15 * largest
    )


@settings(max_examples=300, deadline=None)
@given(data=st.data(), width=st.integers(1, 40))
def test_every_window_is_what_it_is_on_its_own(data, width):
    number = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 99.0, -0.99, 1e-9]))
    values = np.array(data.draw(st.lists(number, max_size=150)), dtype=np.float64)
    assert_exact(values, width)


@pytest.mark.parametrize("width", [7, 168, 1_680])
def test_a_quiet_stretch_keeps_its_digits_beside_a_wild_one(width):
    chance = np.random.default_rng(3)
    quiet = 1e-6 * chance.normal(size=20_000)
    wild = np.where(chance.random(20_000) < 0.01, 0.05, quiet)
    values = np.concatenate([wild, quiet])
    _, squares = rolling_moments(values, width)
    some = chance.integers(width, len(values), 300)
    windows = [values[n - width + 1 : n + 1].astype(np.longdouble) for n in some]
    deviation = [np.sqrt(((w - w.mean()) ** 2).sum()) for w in windows]
    expected = np.asarray(deviation, np.float64)
    np.testing.assert_allclose(np.sqrt(squares[some]), expected, rtol=1e-14)


def test_a_missing_value_is_missing_in_its_windows_alone():
    values = np.arange(30.0)
    values[11] = np.nan
    mean, squares = rolling_moments(values, 4)
    assert np.flatnonzero(np.isnan(mean)).tolist() == [0, 1, 2, 11, 12, 13, 14]
    assert np.isnan(squares).tolist() == np.isnan(mean).tolist()
    assert set(squares[~np.isnan(squares)]) == {5.0}


def test_a_constant_stretch_has_no_spread_at_all():
    _, squares = rolling_moments(np.full(50, 0.1), 7)
    assert set(squares[6:]) == {0.0}
