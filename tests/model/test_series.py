"""The prices of a snapshot as one array on the grid."""

from __future__ import annotations

import numpy as np

from bitstorm.model.series import Series


def test_a_return_needs_both_prices():
    series = Series(0, 1_000, np.array([100.0, 110.0, np.nan, 121.0, 121.0]))
    expected = [np.nan, np.log(1.1), np.nan, np.nan, 0.0]
    np.testing.assert_allclose(series.returns, expected, rtol=1e-14)


def test_places_are_counted_from_the_first_point():
    series = Series(5_000, 1_000, np.ones(3))
    assert series.places(np.array([4_000, 5_000, 7_000])).tolist() == [-1, 0, 2]
