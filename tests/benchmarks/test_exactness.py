"""Every indicator of a hard series in several blocks, against each window on its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import exactness
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.windows import SIZE

pytestmark = pytest.mark.slow


def test_every_column_is_within_its_tolerance_or_reported(spark_session, tmp_path):
    grid = exactness.made(130_000)
    assert grid["run"].max() >= 8 and grid["imputed"].sum() > 100
    references = dict(exactness.reference(grid))
    found = exactness.computed(spark_session, tmp_path, grid)
    worst, nulls, beyond = exactness.compared(found, references)
    assert nulls == 0 and beyond == {}
    assert set(worst) == set(references) - {"macd_unit"}
    assert max(worst.values()) <= 1, worst

    found.loc[65_000, "volatility_24"] *= 1 + 3e-12
    found.loc[66_000, "macd"] = np.nan
    worst, nulls, beyond = exactness.compared(found, references)
    assert beyond == {"volatility_24": 1}
    assert worst["volatility_24"] > 1 and nulls == 1


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0.05, 120_000, 600), (0.05, 1e8, 6_000), (20_000, 2e22, 1)]
)
def test_a_quiet_stretch_beside_a_wild_one_keeps_its_digits(
    spark_session, tmp_path, low, high, count
):
    jitter = np.random.default_rng(6).integers(0, 2, 20_000 + count)
    quiet = np.float32(low).view(np.int32) + jitter[:20_000].astype(np.int32)
    above = np.float32(high).view(np.int32) + jitter[20_000:].astype(np.int32)
    parts = [quiet[:9_000], above.astype(np.int32), quiet[9_000:]]
    price = np.concatenate(parts).astype(np.int32).view(np.float32)
    # Between them a cut, but for a single price, which is a wrong one.
    steps = np.arange(len(price)) + (0 if count == 1 else 100) * (
        np.repeat([0, 1, 2], [len(part) for part in parts])
    )
    begin = 30_000_000 // SIZE * SIZE
    grid = pd.DataFrame({"timestamp": (begin + steps) * 60_000, "price": price, "imputed": False})
    grid["run"] = np.cumsum(np.diff(steps, prepend=steps[0]) > 1)
    found = exactness.computed(spark_session, tmp_path, grid)
    exact = ("log_return", "ma", "volatility", "bollinger", "drawdown")
    references = {k: v for k, v in exactness.reference(grid) if k.startswith(exact)}
    worst, nulls, beyond = exactness.compared(found, references)
    assert nulls == 0 and beyond == {}, worst


@pytest.mark.parametrize(
    ("file", "time", "price", "unit_ms", "step_ms"),
    [
        ("coinbase_btcusd_hourly_2017-07-01_2018-12-31", "timestamp_s", "close", 1_000, 3_600_000),
        ("coingecko_bitcoin_usd_daily_2013-04-28_2023-06-03", "timestamp_ms", "price_usd", 1,
         86_400_000),
    ],
)  # fmt: skip
def test_every_indicator_of_real_prices_keeps_every_digit(
    spark_session, tmp_path, real_data, file, time, price, unit_ms, step_ms
):
    source = pd.read_csv(real_data / f"{file}.csv.gz")
    observed = pd.DataFrame(
        {"timestamp": source[time] * unit_ms, "price": source[price].astype("float32")}
    )
    prices = tmp_path / "prices.parquet"
    observed.to_parquet(prices, index=False)
    points = Grid(step_ms, exactness.MAX_GAP)
    times = observed["timestamp"]
    table = from_prices(
        spark_session.read.parquet(str(prices)),
        grid=points,
        windows=exactness.WIDTHS,
        span=span_of(int(times.min()), int(times.max()), grid=points),
        size=2_048,
    )
    found = table.drop("month").toPandas().sort_values("timestamp", ignore_index=True)
    seen = found[~found["imputed"]].set_index("timestamp")["price"]
    labels = -(-observed["timestamp"] // step_ms) * step_ms
    newest = observed.groupby(labels)["price"].last().loc[: seen.index[-1]]
    pd.testing.assert_series_equal(seen, newest)
    grid = found[["timestamp", "price", "imputed"]].assign(
        run=np.cumsum(found["timestamp"].diff().fillna(step_ms) > step_ms)
    )
    worst, nulls, beyond = exactness.compared(found, dict(exactness.reference(grid)))
    assert nulls == 0 and beyond == {}, worst
