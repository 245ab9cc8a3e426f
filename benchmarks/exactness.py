"""How exact the indicators of one long series are: against every window on its own.

The series holds what costs digits: growth from 0.05 to 120,000 USD, jumps by a factor of 100, a
quiet stretch after a wild one, constant stretches, points carried over small holes, and cuts; in
one block a price near 120,000 and one near 0.05 that both move by their last digit, climbs by one
last digit and by two, by 5 % and by 10 %, and single points 3,000 or 100,000 times the rest.

The ratios are the worst error of each column over the one that is allowed: |ours - reference| <=
tolerance * max(|reference|, floor), with a floor of 1e-6 for returns and volatilities and 1e-9
elsewhere; the tolerance is 1e-12, and 1e-9 for exponential means and RSI. MACD and its signal may
be off by 1e-12 of the price, or of their slow mean where a fallen price leaves that higher. The
reference is computed in long double, one window at a time, and for the exponential ones by plain
recursion, for MACD with forty digits. pandas' own rolling and exponential windows are beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Outcome
from benchmarks.landing import MEMORY, MINUTE_MS, START_MS
from bitstorm.core.settings import Spark
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 5_000_000
WIDTHS = (7, 24, 168)
MAX_GAP = 6
# Windows in long double at a time.
_PIECE = 100_000


def run(rows: int = ROWS) -> Outcome:
    """All indicators of so many minutes; `results` are seconds, `ratios` errors over allowed."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        began = time.perf_counter()
        grid = made(rows)
        found = _ours(Path(scratch), grid)
        middle = time.perf_counter()
        references = dict(reference(grid))
        worst, nulls, beyond = compared(found, references)
        theirs, _, theirs_beyond = compared(by_pandas(grid), references)
        return Outcome(
            name="exactness",
            rows=len(grid),
            results={"ours": middle - began, "reference": time.perf_counter() - middle},
            ratios=worst,
            notes={
                "nulls_that_differ": nulls,
                "values_beyond": beyond,
                "pandas_worst": {name: float(f"{value:.3g}") for name, value in theirs.items()},
                "pandas_values_beyond": theirs_beyond,
                "cuts": int(grid["run"].max()),
                "imputed": int(grid["imputed"].sum()),
            },
        )


def made(rows: int) -> pd.DataFrame:
    """The points of the grid: `timestamp`, `price` (float32), `imputed`, and `run`, which numbers
    the stretches without a cut. The same for the same `rows`."""
    chance = np.random.default_rng(rows)
    third, sixth = rows // 3, rows // 6
    growth = np.geomspace(0.05, 120_000, third) * np.exp(chance.normal(0, 1e-3, third))
    jumps = 50_000 * np.exp(np.cumsum(chance.normal(0, 5e-4, sixth)))
    jumps[np.arange(sixth) // max(1, sixth // 40) % 2 == 1] /= 100
    wild = 20_000 * np.exp(np.cumsum(chance.normal(0, 0.05, sixth)) * 0.02)
    wild *= np.exp(chance.normal(0, 0.2, sixth))
    quiet = 20_000 + np.arange(sixth) % 7 * 0.01
    hard = _hard(max(20, rows // 1_000), chance)
    left = rows - third - 3 * sixth - sum(map(len, hard))
    walk = 20_000 * np.exp(np.cumsum(chance.normal(0, 5e-4, left)))
    for begin in range(0, left, max(1, left // 5)):
        walk[begin : begin + left // 20] = walk[begin]
    price = np.concatenate([growth, jumps, wild, quiet, walk, *hard]).astype(np.float32)
    observed = chance.random(rows) > 1e-3
    # A cut before each of the hard ones.
    for begin in range(rows - sum(map(len, hard)), rows, len(hard[0])):
        observed[begin : begin + MAX_GAP + 2] = False
    for begin in range(rows // 9, rows, rows // 9):
        observed[begin : begin + chance.integers(MAX_GAP + 1, 60)] = False
    observed[0] = observed[-1] = True
    frame = pd.DataFrame({"timestamp": START_MS + MINUTE_MS * np.arange(rows, dtype=np.int64)})
    frame["price"] = np.where(observed, price, np.float32(np.nan))
    frame["price"] = frame["price"].ffill()
    frame["imputed"] = ~observed
    holes = np.cumsum(observed)
    length = pd.Series(~observed).groupby(holes).transform("sum").to_numpy()
    frame = frame[observed | (length <= MAX_GAP)].reset_index(drop=True)
    frame["run"] = np.cumsum(frame["timestamp"].diff().fillna(MINUTE_MS) > MINUTE_MS)
    return frame


def _hard(length: int, chance: np.random.Generator) -> list[np.ndarray]:
    """Stretches of so many points each, few enough for several to share a block."""
    steps = np.arange(length)
    jitter = chance.integers(0, 2, length)
    # Up for a while, then down again.
    turns = np.abs(steps % 200 - 100)
    spikes = 20_000 + steps % 7 * 0.01
    spikes[length // 3 :: max(10, length // 9)] *= 3_000
    spikes[length // 2] *= 1e5
    return [
        _climbing(120_000, jitter),
        _climbing(0.05, jitter),
        _climbing(20_000, steps),
        _climbing(20_000, 2 * steps),
        20 * 1.05**turns,
        20 * 1.1**turns,
        spikes,
    ]


def _climbing(begin: float, steps: np.ndarray) -> np.ndarray:
    """The float32 that are so many steps of the last digit above the first one."""
    bits = np.float32(begin).view(np.int32) + steps.astype(np.int32)
    return bits.astype(np.int32).view(np.float32).astype(np.float64)


def _ours(scratch: Path, grid: pd.DataFrame) -> pd.DataFrame:
    with spark_session(app_name="benchmark", spark=Spark(driver_memory=MEMORY)) as spark:
        return computed(spark, scratch, grid)


def computed(spark: SparkSession, scratch: Path, grid: pd.DataFrame) -> pd.DataFrame:
    """All indicators of the observed points, by time."""
    prices, found = scratch / "prices.parquet", scratch / "indicators"
    observed = grid.loc[~grid["imputed"], ["timestamp", "price"]]
    pq.write_table(pa.Table.from_pandas(observed, preserve_index=False), prices)
    rows = spark.read.parquet(file_url(prices))
    points = Grid(MINUTE_MS, MAX_GAP)
    span = span_of(*(int(grid["timestamp"].iloc[n]) for n in (0, -1)), grid=points)
    table = from_prices(rows, grid=points, windows=WIDTHS, span=span)
    table.drop("month").write.parquet(file_url(found))
    frame = pd.read_parquet(found).sort_values("timestamp", ignore_index=True)
    columns = ["timestamp", "price", "imputed"]
    if not frame[columns].equals(grid[columns]):
        raise ValueError("the points of the grid are not those that were made")
    return frame


def compared(
    found: pd.DataFrame, references: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], int, dict[str, int]]:
    """The worst error of each column over the allowed one, how many nulls are elsewhere, and in
    which columns how many values are beyond what is allowed."""
    worst: dict[str, float] = {}
    beyond: dict[str, int] = {}
    nulls = 0
    for name in found.columns.intersection(list(references)):
        ours, theirs = found[name].to_numpy(np.float64, na_value=np.nan), references[name]
        nulls += int((np.isnan(ours) != np.isnan(theirs)).sum())
        allowed = _tolerance(name) * _unit(name, references)
        error = np.abs(ours - theirs) / allowed
        worst[name] = float(np.nanmax(error))
        if worst[name] > 1:
            beyond[name] = int((error > 1).sum())
    return worst, nulls, beyond


def by_pandas(grid: pd.DataFrame) -> pd.DataFrame:
    """What pandas has of its own, run by run."""
    return pd.concat([_by_pandas(part) for _, part in grid.groupby("run")], ignore_index=True)


def _by_pandas(part: pd.DataFrame) -> pd.DataFrame:
    price = part["price"].astype(np.float64)
    change = price.pct_change(fill_method=None)
    columns = {}
    for width in WIDTHS:
        columns[f"ma_{width}"] = price.rolling(width).mean()
        columns[f"volatility_{width}"] = change.rolling(width).std()
        columns[f"ema_{width}"] = price.ewm(span=width, adjust=False, min_periods=width).mean()
    fast, slow = (price.ewm(span=n, adjust=False, min_periods=n).mean() for n in (12, 26))
    columns["macd"] = fast - slow
    return pd.DataFrame(columns)


def _tolerance(name: str) -> float:
    return 1e-9 if name.startswith(("ema", "rsi")) else 1e-12


def _unit(name: str, references: Mapping[str, np.ndarray]) -> np.ndarray:
    if name.startswith("macd"):
        return references["macd_unit"]
    returns = name == "log_return" or name.startswith("volatility")
    return np.maximum(np.abs(references[name]), 1e-6 if returns else 1e-9)


def reference(grid: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Column by column, float64 with NaN for null. A column without a reference isn't compared."""
    price, run = grid["price"].to_numpy(np.float64), grid["run"].to_numpy()
    begins = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    place = np.arange(len(run)) - np.repeat(begins, np.diff(np.r_[begins, len(run)]))
    exact = price.astype(np.longdouble)
    change = np.full(len(price), np.nan, np.longdouble)
    change[1:] = np.where(place[1:] > 0, (exact[1:] - exact[:-1]) / exact[:-1], np.nan)

    def after(steps: int, values: np.ndarray) -> np.ndarray:
        return np.where(place >= steps, values, np.nan).astype(np.float64)

    # Of a fall by nearly all, a long double has no digits left in 1 + change.
    logs, ratio = np.log1p(change), exact[1:] / exact[:-1]
    logs[1:] = np.where(change[1:] < -0.5, np.log(ratio), logs[1:])
    yield "log_return", logs.astype(np.float64)
    for width in WIDTHS:
        yield f"ma_{width}", after(width - 1, _windowed(exact, width, lambda w: w.mean(axis=1)))
        yield f"volatility_{width}", after(width, _windowed(change, width, _sample_deviation))
    yield from _exponential(exact, place, begins, after)
    middle = _windowed(exact, 20, lambda w: w.mean(axis=1))
    spread = 2 * _windowed(exact, 20, lambda w: w.std(axis=1))
    yield "bollinger_upper_20", after(19, middle + spread)
    yield "bollinger_lower_20", after(19, middle - spread)
    peaks = [np.maximum.accumulate(part) for part in np.split(exact, begins[1:])]
    yield "drawdown", (exact / np.concatenate(peaks) - 1).astype(np.float64)


def _sample_deviation(windows: np.ndarray) -> np.ndarray:
    return windows.std(axis=1, ddof=1)


def _windowed(
    values: np.ndarray, width: int, summary: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Of each trailing window on its own, in long double; 0 before the first whole one."""
    out = np.zeros(len(values), np.longdouble)
    for begin in range(width - 1, len(values), _PIECE):
        end = min(begin + _PIECE, len(values))
        part = values[begin - width + 1 : end]
        out[begin:end] = summary(np.lib.stride_tricks.sliding_window_view(part, width))
    return out


def _exponential(
    price: np.ndarray,
    place: np.ndarray,
    begins: np.ndarray,
    after: Callable[[int, np.ndarray], np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    for width in WIDTHS:
        alpha, out, y = np.longdouble(2) / (width + 1), np.empty_like(price), price[0]
        for number, (value, steps) in enumerate(zip(price, place.tolist(), strict=True)):
            y = value if steps == 0 else y + alpha * (value - y)
            out[number] = y
        yield f"ema_{width}", after(width - 1, out)
    macd, signal, slow = _macd(price, place)
    yield "macd", after(25, macd)
    yield "macd_unit", np.maximum(price.astype(np.float64), slow)
    yield "macd_signal", after(33, signal)
    step = np.diff(price, prepend=price[0])
    step[begins] = 0.0
    gain, loss = (_wilder(np.maximum(sign * step, 0.0), place) for sign in (1, -1))
    moved = gain + loss
    # After some 9,000 steps without a change a double has nothing left of either.
    strength = np.divide(100 * gain, moved, out=np.zeros_like(moved), where=moved > 1e-280)
    yield "rsi_14", after(14, strength)


def _macd(price: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MACD, its signal, and the slower of its two means.

    With forty digits: after a constant stretch MACD is many orders below the price, and a long
    double's last digit would be all that is left of it."""
    macd, signal, slower = (np.empty(len(price)) for _ in range(3))
    fast = slow = smooth = Decimal(0)
    with localcontext() as context:
        context.prec = 40
        quick, slowly, last = (Decimal(2) / (span + 1) for span in (12, 26, 9))
        for number, (known, steps) in enumerate(
            zip(price.astype(np.float64).tolist(), place.tolist(), strict=True)
        ):
            value = Decimal(known)
            fast = value if steps == 0 else fast + quick * (value - fast)
            slow = value if steps == 0 else slow + slowly * (value - slow)
            difference = fast - slow
            smooth = difference if steps <= 25 else smooth + last * (difference - smooth)
            macd[number], signal[number] = difference, smooth
            slower[number] = slow
    return macd, signal, slower


def _wilder(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The simple mean of the first 14 changes of a run, then 13/14 of it and a 14th of each one."""
    out, y = np.empty_like(values), values[0]
    for number, (value, steps) in enumerate(zip(values, place.tolist(), strict=True)):
        if steps == 0:
            y = np.longdouble(0)
        elif steps <= 14:
            y += value / 14
        else:
            y = (13 * y + value) / 14
        out[number] = y
    return out
