"""Price frames in pandas, for notebooks: prepare, moving average, volatility. Pure functions."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitstorm.core.errors import DataError
from bitstorm.core.schema import SECONDS_BELOW
from bitstorm.indicators.kernel import rolling_moments

TIME = "timestamp"
PRICE = "price_usd"
_PRICE_NAMES = (PRICE, "price")
# A date, then optionally a time and an offset. pandas would also accept `now` and `12:30`.
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ]\s*([\d:.,]+))?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)
# The range of datetime64[ns], in whole milliseconds.
_EARLIEST_MS = -(2**63) // 1_000_000 + 1
_LATEST_MS = (2**63 - 1) // 1_000_000

_log = logging.getLogger(__name__)


def prepare_bitcoin_df(df: pd.DataFrame) -> pd.DataFrame:
    """The valid rows of `df`, sorted and indexed by `timestamp` (datetime64[ns, UTC], unique).

    `df` has a column `timestamp` (or a DatetimeIndex of that name) and `price_usd` (or `price`,
    which is renamed). Times can be mixed: Unix milliseconds, Unix seconds (below 10^11),
    ISO-8601 texts (no offset means UTC), datetimes (naive means UTC). Rows without a readable
    time, or with a price that is not finite and above zero, are dropped. The last of rows with the
    same time wins. `price_usd` becomes float64; other columns, and `df` itself, do not change.
    Raises DataError where a required column is missing or repeated.
    """
    rows = df.reset_index() if _indexed_by_time(df) else df
    _one_column(rows, [TIME], meaning="the observation's time")
    name = _price_column(rows)
    times = _times(rows[TIME])
    prices = _numbers(rows[name])
    valid = np.isfinite(prices) & (prices > 0) & ~np.isnat(times)
    rows = rows.loc[valid].drop(columns=[TIME])
    rows = rows.rename(columns={name: PRICE}).assign(**{PRICE: prices[valid]})
    rows.index = pd.DatetimeIndex(times[valid].astype("datetime64[ns]"), name=TIME, tz="UTC")
    rows = rows.sort_index(kind="stable")
    rows = rows.loc[~rows.index.duplicated(keep="last")]
    _log.debug("%d of %d rows are valid and unique", len(rows), len(df))
    return rows


def calculate_moving_average(df: pd.DataFrame, window: int = 7) -> pd.DataFrame:
    """A copy of `df` with `ma_W` (float64): the mean of the last W prices, NaN until there are W.

    `df` is sorted by time and has `price_usd` or `price`. Raises DataError where it has neither,
    or `window` is below 1.
    """
    prices = _prices(df, window=window, smallest=1)
    return df.assign(**{f"ma_{window}": prices.rolling(window).mean()})


def calculate_volatility(df: pd.DataFrame, window: int = 7) -> pd.DataFrame:
    """A copy of `df` with `volatility_W` (float64, a fraction).

    It is the sample standard deviation of the last W fractional changes of the price, NaN until
    there are W. `df` is sorted by time and has `price_usd` or `price`. Raises DataError where it
    has neither, or `window` is below 2.
    """
    prices = _prices(df, window=window, smallest=2)
    changes = prices.pct_change(fill_method=None).to_numpy()
    _, squares = rolling_moments(changes, window)
    return df.assign(**{f"volatility_{window}": np.sqrt(squares / (window - 1))})


def _prices(df: pd.DataFrame, *, window: int, smallest: int) -> pd.Series:
    """The price as float64. Raises DataError for a window below `smallest`."""
    if not isinstance(window, int | np.integer) or window < smallest:
        raise DataError(f"the window is {window!r}; expected a whole number from {smallest} on")
    return df[_price_column(df)].astype(np.float64)


def _price_column(df: pd.DataFrame) -> str:
    return _one_column(df, _PRICE_NAMES, meaning="the price")


def _one_column(df: pd.DataFrame, names: Sequence[str], *, meaning: str) -> str:
    """The first of `names` that is a column. Raises DataError without one or for repeated ones."""
    name = next((name for name in names if name in df.columns), None)
    found = ", ".join(map(str, df.columns)) or "none"
    if name is None:
        raise DataError(
            f"the frame has no column {' or '.join(names)} ({meaning}); its columns are: {found}"
        )
    if list(df.columns).count(name) > 1:
        raise DataError(f"the frame has the column {name} more than once; its columns are: {found}")
    return name


def _indexed_by_time(df: pd.DataFrame) -> bool:
    return (
        isinstance(df.index, pd.DatetimeIndex) and df.index.name == TIME and TIME not in df.columns
    )


def _numbers(values: pd.Series) -> NDArray[np.float64]:
    """float64, NaN where a value is not a number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _times(values: pd.Series) -> NDArray[np.datetime64]:
    """datetime64[ns] in UTC, NaT where a value is not a time."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ns]")
    if values.dtype.kind == "M":
        return values.to_numpy("datetime64[ns]")
    if pd.api.types.is_bool_dtype(values.dtype):
        return np.full(len(values), np.datetime64("NaT"), dtype="datetime64[ns]")
    if pd.api.types.is_numeric_dtype(values.dtype):
        return _from_unix(_numbers(values))
    return _from_mixed(values.astype(object))


def _from_unix(numbers: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Unix seconds (below 10^11) or milliseconds; a double holds both exactly."""
    milliseconds = np.where(np.abs(numbers) < SECONDS_BELOW, numbers * 1000, numbers)
    readable = (milliseconds >= _EARLIEST_MS) & (milliseconds <= _LATEST_MS)
    whole = np.where(readable, np.round(milliseconds), 0).astype(np.int64)
    times = whole.astype("datetime64[ms]").astype("datetime64[ns]")
    times[~readable] = np.datetime64("NaT")
    return times


def _from_mixed(values: pd.Series) -> NDArray[np.datetime64]:
    """Each element as what it is: a number, a datetime, or a text of either."""
    numbers = pd.Series([value if _is_number(value) else None for value in values], dtype=object)
    times = _from_unix(_numbers(numbers))
    texts = pd.Series([_iso(value) for value in values], dtype=object)
    read = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    found = read.dt.tz_localize(None).to_numpy("datetime64[ns]")
    return np.where(np.isnat(times), found, times)


def _is_number(value: Any) -> bool:
    """Whether it can be Unix time: a number or any text (a text that is no number becomes NaN)."""
    return isinstance(value, str | int | float | np.number) and not isinstance(value, bool)


def _iso(value: Any) -> str | None:
    """A text, datetime, date or numpy datetime64 as ISO-8601 with an offset, None for others.

    In a mixed column pandas 2.3 gives a text without an offset the offset of the text before it.
    """
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, date) and value is not pd.NaT:
        value = value.isoformat()
    found = _ISO.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    day, time, offset = found.groups()
    return f"{day}T{time or '00:00'}{offset or 'Z'}".upper()
