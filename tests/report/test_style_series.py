import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from bitstorm.core.errors import DataError
from bitstorm.report.style import (
    require,
    returns_reach,
    squared_error_saved,
    typical_step,
    with_breaks,
)


def test_every_hole_gets_one_row_of_nan_and_nothing_else_changes() -> None:
    frame = pd.DataFrame(
        {"timestamp": [0, 10, 20, 50, 60, 71, 81], "price": [1, 2, 3, 4, 5, 6, 7], "x": "y"}
    )
    expected = pd.DataFrame(
        {
            "timestamp": [0, 10, 20, 30, 50, 60, 70, 71, 81],
            "price": [1.0, 2.0, 3.0, np.nan, 4.0, 5.0, np.nan, 6.0, 7.0],
        }
    )
    assert_frame_equal(with_breaks(frame, ["price"]), expected)


def test_the_step_can_be_given_where_the_rows_come_irregularly() -> None:
    frame = pd.DataFrame({"timestamp": [0, 10, 35, 135], "price": [1.0, 2.0, 3.0, 4.0]})
    assert with_breaks(frame, ["price"], step_ms=50)["price"].isna().tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_series_too_short_for_a_hole_stays_as_it_is(rows: int) -> None:
    frame = pd.DataFrame({"timestamp": [5, 900][:rows], "price": [1.0, 2.0][:rows]})
    frame = frame.astype({"timestamp": np.int64, "price": np.float64})
    assert_frame_equal(with_breaks(frame, ["price"]), frame)


def test_a_short_last_step_does_not_change_the_typical_step() -> None:
    assert typical_step(np.array([0, 30, 60, 90, 100])) == 30
    assert typical_step(np.array([7])) == 0


def test_saved_error_and_reach_equal_those_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "actual_log_return": [0.02, -0.01, np.nan, 0.03],
            "forecast_log_return": [0.01, 0.01, 0.5, 0.03],
        }
    )
    # Persistence: 4e-4, 1e-4, unknown, 9e-4. Model: 1e-4, 4e-4, unknown, 0.
    np.testing.assert_allclose(squared_error_saved(frame), [3e-4, 0, 0, 9e-4], atol=1e-18)
    assert returns_reach(frame) == pytest.approx(1.05 * 0.5)


def test_a_missing_column_is_named_with_what_is_there() -> None:
    with pytest.raises(DataError, match="the price frame has no column ma_7; found timestamp"):
        require(pd.DataFrame({"timestamp": [1]}), ["timestamp", "ma_7"], of="price")
