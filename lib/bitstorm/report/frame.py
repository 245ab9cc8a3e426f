"""Pictures and a printed report of a pandas price frame, for notebooks.

A frame comes from `prepare_bitcoin_df`: it has an ascending DatetimeIndex (naive means UTC) and
`price_usd` or `price`. `df.attrs["source"]` can name the source of the prices; pictures and text of
`simulated:SEED` are marked.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bitstorm.core.errors import DataError
from bitstorm.core.time import HOUR_MS, iso
from bitstorm.indicators.frame import (
    calculate_moving_average,
    calculate_volatility,
    prices_of,
    require_frame,
)
from bitstorm.report.style import Mark, money, percent, typical_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DAY = pd.Timedelta(hours=24)
_WINDOW = 7
# A longer distance is a hole: observations are irregular.
_HOLE_STEPS = 6


def plot_price_trend(df: pd.DataFrame) -> Figure:
    """The price and every `ma_W` of the frame, over time in UTC.

    A notebook shows the returned figure. Raises DataError where the frame is empty or does not come
    from `prepare_bitcoin_df`.
    """
    return _figure(_plain(df), "ma")


def plot_volatility(df: pd.DataFrame) -> Figure:
    """Every `volatility_W` of the frame, or `volatility_7` where it has none.

    Result and errors are as in `plot_price_trend`.
    """
    frame = _plain(df)
    if not _windows(frame, "volatility"):
        frame = _with_indicators(frame)
    return _figure(frame, "volatility")


def _figure(frame: pd.DataFrame, name: str) -> Figure:
    """The picture of the columns `name_W` of a frame from `_plain`."""
    from bitstorm.report import price_figure, volatility_figure

    draw = {"ma": price_figure, "volatility": volatility_figure}[name]
    step_ms = _HOLE_STEPS * typical_step(frame["timestamp"].to_numpy(np.int64))
    return draw(frame, windows=_windows(frame, name), mark=_mark(frame), step_ms=step_ms)


def generate_report(df: pd.DataFrame) -> str:
    """Print period, count, statistics, latest price and 24 h change; show both pictures.

    Works on a copy, which gets `ma_7` and `volatility_7` where they are missing. Returns the
    printed text. Errors are as in `plot_price_trend`.
    """
    from bitstorm.report.canvas import show

    frame = _with_indicators(_plain(df))
    text = _report_text(frame)
    sys.stdout.write(text)
    sys.stdout.flush()
    for name in ("ma", "volatility"):
        show(_figure(frame, name))
    return text


def _mark(df: pd.DataFrame) -> Mark:
    """The mark of the frame's source, which is mostly unknown."""
    return Mark(str(df.attrs.get("source", "unknown")), "bitcoin", "usd")


def _report_text(frame: pd.DataFrame) -> str:
    first, last = (iso(int(frame["timestamp"].iloc[position])) for position in (0, -1))
    numbers = frame.drop(columns="timestamp").select_dtypes("number")
    with np.errstate(all="ignore"):
        statistics = numbers.rename(columns={"price": "price_usd"}).describe()
    banner = _mark(frame).banner
    return "\n".join(
        [
            "Bitcoin report",
            *([f"*** {banner} ***"] if banner else []),
            f"Period: {first} to {last}",
            f"Count: {len(frame):,}",
            "",
            statistics.to_string(float_format="{:,.6g}".format),
            "",
            f"Latest price: {money(float(frame['price'].iloc[-1]), 'USD')}",
            f"Change in 24 h: {percent(_change_in_a_day(frame))}",
            "",
        ]
    )


def _change_in_a_day(frame: pd.DataFrame) -> float | None:
    """The change, in percent, since the last observation that is at least 24 h old.

    None where that observation is more than two steps, and more than an hour, older than 24 h.
    """
    timestamp = frame["timestamp"].to_numpy(np.int64)
    day_ago = int(timestamp[-1]) - _DAY // pd.Timedelta(milliseconds=1)
    position = int(np.searchsorted(timestamp, day_ago, side="right")) - 1
    if (
        position < 0
        or not frame["price"].iloc[position]
        or day_ago - timestamp[position] > max(HOUR_MS, 2 * typical_step(timestamp))
    ):
        return None
    before, latest = (float(frame["price"].iloc[k]) for k in (position, -1))
    return 100 * (latest - before) / before


def _plain(df: pd.DataFrame) -> pd.DataFrame:
    """`timestamp` (int64, ms UTC) and `price` (float64), then the frame's other columns."""
    require_frame(df)
    lacks = [] if {"price_usd", "price"} & set(df.columns) else ["column price_usd or price"]
    lacks += [] if isinstance(df.index, pd.DatetimeIndex) else ["DatetimeIndex"]
    if lacks:
        raise DataError(f"the frame has no {lacks[0]}; pass it through prepare_bitcoin_df first")
    if not df.columns.is_unique:
        twice = ", ".join(map(str, df.columns[df.columns.duplicated()].unique()))
        raise DataError(f"the frame has more than one column {twice}; expected one of each name")
    if df.empty:
        raise DataError("the frame has no row; there is nothing to report")
    if df.index.hasnans or not df.index.is_monotonic_increasing:
        raise DataError(
            "the frame's times are not in ascending order; pass it through prepare_bitcoin_df first"
        )
    index = df.index if df.index.tz is None else df.index.tz_convert("UTC").tz_localize(None)
    prices = prices_of(df)
    rest = df.drop(columns=[prices.name, "timestamp", "price"], errors="ignore")
    frame = pd.DataFrame(
        {
            "timestamp": index.to_numpy("datetime64[ms]").astype(np.int64),
            "price": prices.to_numpy(),
            **{column: rest[column].to_numpy() for column in rest.columns},
        }
    )
    frame.attrs = dict(df.attrs)
    return frame


def _with_indicators(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `ma_7` and `volatility_7`."""
    for name, add in (("ma", calculate_moving_average), ("volatility", calculate_volatility)):
        if f"{name}_{_WINDOW}" not in frame.columns:
            frame = add(frame, _WINDOW)
    return frame


def _windows(frame: pd.DataFrame, name: str) -> list[int]:
    """The windows W of the columns `name_W`, ascending."""
    found = [re.fullmatch(rf"{name}_(\d+)", str(column)) for column in frame.columns]
    for match in filter(None, found):
        try:
            frame[match[0]].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{match[0]} is no column of numbers ({error}); drop it") from None
    return sorted(int(match[1]) for match in found if match)
