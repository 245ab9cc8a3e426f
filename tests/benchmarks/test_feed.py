"""The ways that the benchmark of the feed compares serve the same windows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import feed
from bitstorm.model.feed import make_feed

pytestmark = pytest.mark.slow

ROWS = 10_000


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return feed.write_series(tmp_path_factory.mktemp("feed") / "series", ROWS)


@pytest.fixture(scope="module")
def expected(series):
    """Every window on its own."""
    table = series.table.to_pandas()
    value, target = series.scaler.features["log_return"], series.scaler.target
    weights = np.sqrt(np.arange(2, feed.LOOK_BACK + 2))
    found = []
    for end in range(feed.LOOK_BACK - 1, ROWS - 1):
        then, rows = table.iloc[end + 1], table.iloc[end - feed.LOOK_BACK + 1 : end + 1]
        if then.imputed or np.isnan(then.log_return) or rows.log_return.isna().any():
            continue
        scaled = value.forward(rows.log_return.to_numpy())
        found.append(scaled @ weights + np.pi * target.forward(then.log_return))
    return np.sort(found)


def test_no_window_targets_an_imputed_point_or_crosses_a_cut(series, expected):
    assert series.table["imputed"].to_numpy().sum() > 0
    assert len(np.unique(series.table["segment"])) == feed.CUTS + 1
    # A cut costs sixty windows, an imputed point at most one.
    assert ROWS - 61 * (feed.CUTS + 1) - 50 < len(expected) < ROWS - 60 * (feed.CUTS + 1)
    np.testing.assert_allclose(feed.keys(feed._plain(series)), expected, rtol=1e-5, atol=1e-4)


def test_ours_and_stock_serve_them(spark_session, series, expected, tmp_path):
    with feed._stored(spark_session, series, feed.LOOK_BACK, tmp_path / "ours") as stored:
        ours = make_feed(stored, series.scaler)
        assert len(ours) == len(expected)
        for seed in (None, 3):
            feed.check(feed._epoch(ours, seed=seed, number=1), expected)
    stock = feed.stock_converter(spark_session, series, tmp_path / "stock")
    feed.check(feed.by_stock(stock), expected)
    stock.delete()


def test_what_is_in_memory_serves_them(series, expected):
    feed.check(feed.in_memory(series), expected)


def test_a_way_that_serves_others_is_found_out(series, expected):
    batches = list(feed.in_memory(series))
    with pytest.raises(AssertionError, match="other windows"):
        feed.check(iter(batches[1:]), expected)
    window, target = (np.array(one) for one in batches[0])
    window[3, 7] += 0.1
    with pytest.raises(AssertionError, match="other windows"):
        feed.check(iter([(window, target), *batches[1:]]), expected)
