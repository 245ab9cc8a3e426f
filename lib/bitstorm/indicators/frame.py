"""Price frames in pandas, for notebooks: prepare, moving average, volatility. Pure functions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitstorm.collect.csv_import.cells import (
    UNIT_WORDS,
    StampForm,
    guessed_decimal,
    guessed_stamps,
    number_text,
)
from bitstorm.core.errors import DataError
from bitstorm.core.schema import GENESIS_MS, SECONDS_BELOW
from bitstorm.indicators.kernel import rolling_moments

TIME = "timestamp"
PRICE = "price_usd"
_PRICE_NAMES = (PRICE, "price")
# A date, then optionally a time and an offset. pandas would also accept `now` and `12:30`.
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ]\s*([\d:.,]+))?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)
_NAT = np.datetime64("NaT", "ns")
# The range of datetime64[ns], in whole seconds.
_LATEST_S = (2**63 - 1) // 1_000_000_000
# So many texts, evenly spaced, give the form of all.
_SAMPLE = 1_000


def prepare_bitcoin_df(df: pd.DataFrame) -> pd.DataFrame:
    """The valid rows of `df`, sorted and indexed by `timestamp` (datetime64[ns, UTC], unique).

    `df` has a column `timestamp` (or an index of that name) and `price_usd` (or `price`, which is
    renamed). It reads what `bitstorm import` reads. Times can be mixed: Unix seconds (below 10^11),
    milliseconds (below 10^14), microseconds (below 10^17) or nanoseconds, ISO-8601 texts,
    datetimes, dates of one form such as `Feb 13, 2024`, serial dates of Excel. Without an offset a
    time is in UTC. Prices can be texts with separators and a currency sign.

    Rows without a readable time, or with a price that is not finite and above zero, are dropped. So
    are dates whose day and month can be exchanged. The last of rows with the same time stays. One
    UserWarning says how many rows were dropped, why, and the first one. `price_usd` becomes
    float64; other columns, and `df` itself, do not change. Raises DataError where a required column
    is missing or repeated.
    """
    require_frame(df)
    rows = df.reset_index() if TIME in df.index.names and TIME not in df.columns else df
    _one_column(rows, [TIME], meaning="the observation's time")
    name = _price_column(rows)
    times, ambiguous, patterns = _times(rows[TIME])
    prices = _numbers(rows[name])
    bad_time, bad_price = np.isnat(times), ~(np.isfinite(prices) & (prices > 0))
    valid = ~bad_time & ~bad_price
    unique = ~pd.Series(times).where(valid).duplicated(keep="last").to_numpy()
    _warn_of_dropped(
        rows,
        {
            "no readable time": (bad_time & ~ambiguous, TIME),
            "a date whose day and month can be exchanged (convert the column, with "
            f"pd.to_datetime and the format {' or '.join(patterns)})": (ambiguous, TIME),
            "a price that is not a finite number above 0": (bad_price & ~bad_time, name),
            "the time of a later row, which stays": (valid & ~unique, TIME),
        },
    )
    valid &= unique
    rows = rows.loc[valid].drop(columns=[TIME])
    rows = rows.rename(columns={name: PRICE}).assign(**{PRICE: prices[valid]})
    rows.index = pd.DatetimeIndex(times[valid], name=TIME, tz="UTC")
    return rows.sort_index(kind="stable")


def _warn_of_dropped(rows: pd.DataFrame, reasons: dict[str, tuple[NDArray[np.bool_], str]]) -> None:
    """Warn once of all dropped rows; each reason has its rows and the column to show."""
    found = []
    for reason, (mask, column) in reasons.items():
        if mask.any():
            first = int(mask.argmax())
            found.append(
                f"{int(mask.sum()):,} with {reason}; the first is row {first + 1:,}, with "
                f"{column} {repr(rows[column].iloc[first])[:80]}"
            )
    if found:
        count = sum(int(mask.sum()) for mask, _ in reasons.values())
        text = f"prepare_bitcoin_df dropped {count:,} of {len(rows):,} rows: {'. '.join(found)}"
        warnings.warn(text, UserWarning, stacklevel=3)


def calculate_moving_average(df: pd.DataFrame, window: int = 7) -> pd.DataFrame:
    """A copy of `df` with `ma_W` (float64): the mean of the last W prices, NaN until there are W.

    `df` is sorted by time and has `price_usd` or `price`. Raises DataError where it has neither,
    a price is no number, or `window` is not a whole number from 1 on.
    """
    window, prices = _checked_window(window, smallest=1), prices_of(df)
    return df.assign(**{f"ma_{window}": prices.rolling(window).mean()})


def calculate_volatility(df: pd.DataFrame, window: int = 7) -> pd.DataFrame:
    """A copy of `df` with `volatility_W` (float64, a fraction).

    It is the sample standard deviation of the last W fractional changes of the price, NaN until
    there are W. `df` is sorted by time and has `price_usd` or `price`. Raises DataError where it
    has neither, a price is no number, or `window` is not a whole number from 2 on.
    """
    window, prices = _checked_window(window, smallest=2), prices_of(df)
    changes = prices.pct_change(fill_method=None).to_numpy()
    with np.errstate(all="ignore"):
        _, squares = rolling_moments(changes, window)
    return df.assign(**{f"volatility_{window}": np.sqrt(squares / (window - 1))})


def require_frame(df: object) -> None:
    """Raise DataError where `df` is not a pandas DataFrame."""
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"found a {type(df).__name__}, expected a pandas DataFrame")


def prices_of(df: pd.DataFrame) -> pd.Series:
    """The frame's prices as float64, NaN for null. Raises DataError for a frame without one column
    of prices, and for a price that is no finite number."""
    require_frame(df)
    given = df[_price_column(df)]
    prices = pd.Series(_numbers(given), index=df.index, name=given.name)
    if (bad := ~np.isfinite(prices.to_numpy()) & given.notna().to_numpy()).any():
        first = int(bad.argmax())
        raise DataError(
            f"{given.name} of row {first + 1:,} is {given.iloc[first]!r}, expected a finite number "
            f"({int(bad.sum()):,} such rows); pass the frame through prepare_bitcoin_df first"
        )
    return prices


def _checked_window(window: int, *, smallest: int) -> int:
    whole = isinstance(window, int | np.integer) and not isinstance(window, bool)
    if not whole or window < smallest:
        raise DataError(f"the window is {window!r}; expected a whole number from {smallest} on")
    return int(window)


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
    if df.columns.nlevels > 1 or list(df.columns).count(name) > 1:
        raise DataError(f"the frame has the column {name} more than once; its columns are: {found}")
    return name


def _numbers(values: pd.Series) -> NDArray[np.float64]:
    """float64, NaN where a value is not a number. The texts of a column have one decimal mark."""
    if values.dtype.kind in "mMc":
        raise DataError(f"{values.name} is {values.dtype}, expected numbers")
    values = values.astype(object) if values.dtype == "category" else values
    numbers = _to_numeric(values)
    unread = np.isnan(numbers) & values.notna().to_numpy()
    if not unread.any():
        return numbers
    is_text = np.array([isinstance(value, str) for value in values], bool)
    texts = pd.Series([value.strip() for value in values[is_text]], dtype=object)
    decimal, _ = guessed_decimal(texts.tolist())
    numbers[is_text] = _to_numeric(texts.map(lambda text: number_text(text, decimal)))
    return numbers


def _to_numeric(values: pd.Series) -> NDArray[np.float64]:
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def _times(values: pd.Series) -> tuple[NDArray[np.datetime64], NDArray[np.bool_], Sequence[str]]:
    """datetime64[ns] in UTC, NaT where a value is not a time; which ones are NaT because day and
    month can be exchanged; and the patterns that these can have."""
    if values.dtype.kind == "M":
        if getattr(values.dt, "tz", None) is not None:
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        times = _in_nanoseconds(values.to_numpy())
    elif pd.api.types.is_bool_dtype(values.dtype):
        times = np.full(len(values), _NAT)
    elif pd.api.types.is_numeric_dtype(values.dtype):
        times = _from_unix(values)
    else:
        times = _from_mixed(values.astype(object))
    # The rest as `import` reads it; also what is before Bitcoin's first block, such as 20240213.
    ambiguous = np.zeros(len(values), bool)
    early = np.isnat(times) | (times < np.datetime64(GENESIS_MS, "ms"))
    rest = [n for n in np.flatnonzero(early) if _is_number(values.iloc[n])]
    texts = [_text(values.iloc[n]) for n in rest]
    unit, patterns = guessed_stamps(texts[:: -(-len(texts) // _SAMPLE)] if texts else [])
    if unit not in ("iso", "date", "excel"):
        return times, ambiguous, ()
    forms = [StampForm(unit, pattern=pattern) for pattern in patterns or ("",)]
    # None becomes NaT.
    read = np.array([[f.moment(text) for text in texts] for f in forms], "datetime64[ms]")
    if len(forms) > 1:
        ambiguous[rest] = np.isnat(times[rest]) & ~np.isnat(read).all(axis=0)
    else:
        times[rest] = np.where(np.isnat(read[0]), times[rest], _in_nanoseconds(read[0]))
    if unit == "excel":
        text = f"{TIME} is read as {UNIT_WORDS[unit]}; the first is {texts[0]}"
        warnings.warn(text, UserWarning, stacklevel=3)
    return times, ambiguous, patterns


def _text(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value).strip()


def _in_nanoseconds(times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """datetime64[ns] of any unit; NaT out of its range, where NumPy would wrap around."""
    with np.errstate(all="ignore"):
        seconds = times.astype("datetime64[s]").astype(np.int64)
    return np.where(np.abs(seconds) < _LATEST_S, times.astype("datetime64[ns]"), _NAT)


def _from_unix(values: pd.Series) -> NDArray[np.datetime64]:
    """Unix seconds and milliseconds to the millisecond, microseconds and nanoseconds to the
    microsecond; a double holds these exactly."""
    numbers = _to_numeric(values)
    size = np.abs(numbers)
    units = [size < SECONDS_BELOW, size < 10**14, size < 10**17]
    whole = [np.round(numbers * 1000) * 1000, np.round(numbers) * 1000, numbers]
    microseconds = np.round(np.select(units, whole, numbers / 1000))
    readable = np.abs(microseconds) < _LATEST_S * 10**6
    times = np.where(readable, microseconds, 0).astype(np.int64).astype("datetime64[us]")
    return np.where(readable, times.astype("datetime64[ns]"), _NAT)


def _from_mixed(values: pd.Series) -> NDArray[np.datetime64]:
    """Each element as what it is: a number, a datetime, or a text of either."""
    numbers = pd.Series([value if _is_number(value) else None for value in values], dtype=object)
    times = _from_unix(numbers)
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
