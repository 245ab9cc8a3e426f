"""The same windows by other people's programs: Parquet files of minutes in, a table out.

Each way gives `timestamp`, `price` and for each width `ma_W` and `volatility_W` (sample standard
deviation of the last W fractional changes), null until the whole window is there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HOW_TO_INSTALL = "not installed: `scripts/setup --bench` does it"
# DuckDB and Polars are given what Spark's local[2] is.
THREADS = 2

Way = Callable[[Sequence[Path], Sequence[int]], Any]


def by_pandas(files: Sequence[Path], widths: Sequence[int]) -> Any:
    """A pandas frame, on one thread: pyarrow's are switched off while the files are read."""
    import pandas as pd
    import pyarrow.parquet as pq

    read = [pq.read_table(file, use_threads=False, partitioning=None) for file in files]
    frame = pd.concat([table.to_pandas(use_threads=False) for table in read], ignore_index=True)
    price = frame["price"].astype("float64")
    change = price.pct_change(fill_method=None)
    for width in widths:
        frame[f"ma_{width}"] = price.rolling(width).mean()
        frame[f"volatility_{width}"] = change.rolling(width).std()
    return frame


def by_duckdb(files: Sequence[Path], widths: Sequence[int]) -> Any:
    """A temporary table of a database in memory, as a relation."""
    import duckdb

    columns = ", ".join(
        f"CASE WHEN number >= {w} THEN avg(exact) OVER last_{w} END AS ma_{w}, "
        f"CASE WHEN number > {w} THEN stddev_samp(change) OVER last_{w} END AS volatility_{w}"
        for w in widths
    )
    frames = ", ".join(f"last_{w} AS (ORDER BY timestamp ROWS {w - 1} PRECEDING)" for w in widths)
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute(
        f"""
        CREATE TEMP TABLE result AS
        WITH points AS (
            SELECT timestamp, price, price::DOUBLE AS exact, row_number() OVER by_time AS number,
                lag(price::DOUBLE) OVER by_time AS before
            FROM read_parquet(?) WINDOW by_time AS (ORDER BY timestamp)
        ), changes AS (SELECT *, (exact - before) / before AS change FROM points)
        SELECT timestamp, price, {columns} FROM changes WINDOW {frames}
        """,
        [[str(file) for file in files]],
    )
    return connection.table("result")


def by_polars(files: Sequence[Path], widths: Sequence[int]) -> Any:
    """A Polars frame. The threads are all that there are: Polars fixes them when it is loaded."""
    import polars as pl

    exact = pl.col("price").cast(pl.Float64)
    columns = []
    for width in widths:
        columns += [
            exact.rolling_mean(width).alias(f"ma_{width}"),
            exact.pct_change().rolling_std(width).alias(f"volatility_{width}"),
        ]
    return pl.scan_parquet(list(files)).with_columns(columns).collect()


WAYS: dict[str, Way] = {"duckdb": by_duckdb, "pandas": by_pandas, "polars": by_polars}


def missing(name: str) -> bool:
    return importlib.util.find_spec(name) is None
