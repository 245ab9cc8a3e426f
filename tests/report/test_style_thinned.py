"""A test part of more rows than a picture draws: every number is of all rows."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitstorm import report
from bitstorm.report.style import MOST_POINTS, Mark, extremes, thinned

ROWS = 12_000
HOUR = 3_600_000
SIMULATED = Mark("simulated:7", "bitcoin", "usd")
Lines = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@pytest.fixture(scope="module")
def long_forecast() -> pd.DataFrame:
    """The largest return is in a row that no picture draws, and a hole lies in the middle."""
    random = np.random.default_rng(5)
    actual_return = random.normal(0, 0.004, ROWS)
    predicted = 0.3 * actual_return + random.normal(0, 0.001, ROWS)
    actual_return[1] = 0.25
    price = 42_000 * np.exp(np.cumsum(actual_return))
    before = price / np.exp(actual_return)
    forecast = before * np.exp(predicted)
    return pd.DataFrame(
        {
            "timestamp": 1_704_067_200_000
            + HOUR * (np.arange(ROWS) + 48 * (np.arange(ROWS) >= 7_000)),
            "actual": price,
            "forecast": forecast,
            "persistence": before,
            "lower": forecast * 0.99,
            "upper": forecast * 1.01,
            "actual_log_return": actual_return,
            "forecast_log_return": predicted,
        }
    )


def in_png(forecast: pd.DataFrame, metrics: dict[str, Any]) -> tuple[Lines, Lines, float]:
    """The lines of the zoomed panel and of the running sum, and the range of the returns."""
    level = metrics["interval"]["level"]
    zoom, returns, saved = report.test_figure(forecast, mark=SIMULATED, level=level).axes
    found: list[Lines] = []
    for axes in (zoom, saved):
        lines: Lines = {}
        for line in axes.get_lines():
            times = np.asarray(line.get_xdata(orig=True))
            if times.dtype.kind == "M":
                stamps = times.astype("datetime64[ms]").astype(np.int64)
                values = np.asarray(line.get_ydata(), np.float64)
                lines[str(line.get_label())] = (stamps.astype(np.float64), values)
        found.append(lines)
    return found[0], found[1], float(returns.get_xlim()[1])


def test_all_numbers_of_a_long_forecast_are_of_all_rows(
    long_forecast: pd.DataFrame, metrics: dict[str, Any]
) -> None:
    zoom, saved, reach = in_png(long_forecast, metrics)
    stamps = long_forecast["timestamp"].to_numpy()
    actual = long_forecast["actual_log_return"].to_numpy()
    missed = actual - long_forecast["forecast_log_return"].to_numpy()
    running = np.cumsum(actual**2 - missed**2)

    name = next(name for name in saved if name.startswith("model"))
    times, sums = saved[name]
    times, sums = times[np.isfinite(sums)], sums[np.isfinite(sums)]
    assert len(sums) == ROWS // 3 <= MOST_POINTS
    at = np.searchsorted(stamps, times)
    np.testing.assert_array_equal(stamps[at], times)
    np.testing.assert_allclose(sums, running[at], rtol=1e-12)
    # The end of the sum is the skill of metrics.json times persistence's squared error.
    skill = 1 - np.sum(missed**2) / np.sum(actual**2)
    assert sums[-1] == pytest.approx(skill * np.sum(actual**2), rel=1e-9)
    assert reach == pytest.approx(1.05 * 0.25)

    for label, column in (("actual", "actual"), ("forecast", "forecast")):
        times, levels = zoom[label]
        np.testing.assert_array_equal(times, stamps[-96:])
        np.testing.assert_array_equal(levels, long_forecast[column].to_numpy()[-96:])


@pytest.mark.parametrize(
    ("rows", "every"), [(0, 1), (1, 1), (5_000, 1), (5_001, 2), (10_000, 2), (12_000, 3)]
)
def test_thinning_keeps_every_kth_row_and_the_last(rows: int, every: int) -> None:
    frame = pd.DataFrame({"timestamp": np.arange(rows)})
    kept = thinned(frame)["timestamp"].tolist()
    assert kept == list(range(rows))[::-1][::every][::-1]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(0, 400), most=st.integers(2, 60))
def test_extremes_are_kept_at_their_times_and_breaks_stay(data, rows, most):
    values = data.draw(
        st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, -4.0, np.nan]), min_size=rows, max_size=rows)
    )
    lines = pd.DataFrame({"timestamp": np.arange(rows), "price": values})
    kept = extremes(lines, "price", most=most)
    pd.testing.assert_frame_equal(kept, lines.loc[kept.index])
    if rows <= most:
        assert len(kept) == rows
        return
    width = -(-2 * rows // most)
    breaks = int(np.sum(np.diff(np.isnan(values))))
    assert len(kept) <= 2 * -(-rows // width) + 2 * breaks + 1 <= most + 2 + 2 * breaks + 1
    for _, stretch in lines.groupby(lines.index // width):
        own = kept.loc[kept.index.isin(stretch.index), "price"]
        if stretch["price"].notna().any():
            assert own.min() == stretch["price"].min()
            assert own.max() == stretch["price"].max()
    # A line of the kept rows is broken where the line of all rows is.
    whole = "".join("-" if np.isnan(value) else "x" for value in values)
    drawn = "".join("-" if np.isnan(value) else "x" for value in kept["price"])
    assert len(re.findall("x+", drawn)) == len(re.findall("x+", whole))
    assert kept.index[-1] == rows - 1
