"""The columns of IndicatorSchema by other programs: Parquet files of a grid in, a table out.

Neither puts the prices on a grid or looks for cuts: the files have neither holes nor cuts. A new
indicator may be missing here: the peers then do less work than Bitstorm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Way = Callable[[Sequence[Path], Sequence[int]], Any]


def by_pandas(files: Sequence[Path], widths: Sequence[int]) -> Any:
    """A pandas frame, on one thread."""
    import pandas as pd
    import pyarrow.parquet as pq

    read = [pq.read_table(file, use_threads=False, partitioning=None) for file in files]
    frame = pd.concat([table.to_pandas(use_threads=False) for table in read], ignore_index=True)
    price = frame["price"].astype("float64")
    change = price.pct_change(fill_method=None)

    def ema(series: pd.Series, span: int) -> pd.Series:
        return series.ewm(span=span, adjust=False, min_periods=span).mean()

    frame["imputed"] = False
    frame["log_return"] = np.log1p(change)
    for width in widths:
        frame[f"ma_{width}"] = price.rolling(width).mean()
        frame[f"volatility_{width}"] = change.rolling(width).std()
        frame[f"ema_{width}"] = ema(price, width)
    frame["macd"] = ema(price, 12) - ema(price, 26)
    frame["macd_signal"] = ema(frame["macd"], 9)
    frame["rsi_14"] = _strength(price)
    middle, spread = price.rolling(20).mean(), price.rolling(20).std(ddof=0)
    frame["bollinger_upper_20"] = middle + 2 * spread
    frame["bollinger_lower_20"] = middle - 2 * spread
    frame["drawdown"] = price / price.cummax() - 1
    frame["trend"] = np.sign(frame[f"ma_{min(widths)}"] - frame[f"ma_{max(widths)}"])
    frame["month"] = frame["timestamp"].astype("datetime64[ms]").dt.to_period("M")
    return frame


def _strength(price: Any) -> Any:
    """Wilder's RSI: the simple mean of 14 changes, then a 14th of each one."""
    import pandas as pd

    step = price.diff()
    sides = []
    for sign in (1, -1):
        moved = (sign * step).clip(lower=0)
        seeded = pd.concat([moved[1:15].expanding().mean()[-1:], moved[15:]])
        sides.append(seeded.ewm(alpha=1 / 14, adjust=False).mean())
    gain, loss = sides
    return 100 * gain / (gain + loss)


def by_polars(files: Sequence[Path], widths: Sequence[int]) -> Any:
    """A Polars frame, on all threads that there are."""
    import polars as pl

    price = pl.col("price").cast(pl.Float64)
    change = price.pct_change()

    def ema(of: Any, span: int) -> Any:
        return of.ewm_mean(span=span, adjust=False, min_samples=span)

    def wilder(sign: int) -> Any:
        moved = (sign * price.diff()).clip(lower_bound=0)
        first = moved.slice(1, 14).mean()
        row = pl.int_range(pl.len())
        seeded = pl.when(row == 14).then(first).when(row > 14).then(moved)
        return seeded.ewm_mean(alpha=1 / 14, adjust=False, ignore_nulls=True)

    gain, loss = wilder(1), wilder(-1)
    middle, spread = price.rolling_mean(20), price.rolling_std(20, ddof=0)
    macd = ema(price, 12) - ema(price, 26)
    short, long = (price.rolling_mean(width) for width in (min(widths), max(widths)))
    columns = {
        "imputed": pl.lit(False),
        "log_return": change.log1p(),
        **{f"ma_{width}": price.rolling_mean(width) for width in widths},
        **{f"volatility_{width}": change.rolling_std(width) for width in widths},
        **{f"ema_{width}": ema(price, width) for width in widths},
        "macd": macd,
        "macd_signal": ema(macd, 9),
        "rsi_14": 100 * gain / (gain + loss),
        "bollinger_upper_20": middle + 2 * spread,
        "bollinger_lower_20": middle - 2 * spread,
        "drawdown": price / price.cum_max() - 1,
        "trend": (short - long).sign(),
        "month": pl.from_epoch("timestamp", time_unit="ms").dt.strftime("%Y-%m"),
    }
    return pl.scan_parquet(list(files)).with_columns(**columns).collect()


WAYS: dict[str, Way] = {"pandas": by_pandas, "polars": by_polars}
