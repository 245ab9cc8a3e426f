"""What all pictures share: the mark of the source, numbers as text, colours and columns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitstorm.core.errors import DataError
from bitstorm.core.sidecar import Origin

COINGECKO = "coingecko"
UNKNOWN = "unknown"
COINGECKO_URL = "https://www.coingecko.com"


@dataclass(frozen=True)
class Mark(Origin):
    """`source` is `simulated:SEED`, `coingecko` or `csv`; coin and currency are CoinGecko's ids."""

    @property
    def unit(self) -> str:
        """The unit of the prices, such as `USD`."""
        return self.vs_currency.upper()

    @property
    def subject(self) -> str:
        """Coin and unit: `Bitcoin in USD`."""
        return f"{self.coin.capitalize()} in {self.unit}"

    @property
    def banner(self) -> str | None:
        """The warning for simulated data; None for real data."""
        if not self.simulated:
            return None
        _, _, seed = self.source.partition(":")
        return f"SIMULATED market{f' (seed {seed})' if seed else ''}: not real prices"

    @property
    def attribution(self) -> str | None:
        """The line that CoinGecko requires next to its data; None for other sources."""
        return "Data provided by CoinGecko" if self.source == COINGECKO else None

    @property
    def origin(self) -> str:
        """The source in words."""
        if self.simulated:
            return f"{self.source} (the built-in simulated market)"
        if self.source == UNKNOWN:
            return self.source
        return "CoinGecko" if self.source == COINGECKO else f"{self.source} (imported file)"


NONE = "n/a"
# Persistence, in words.
STAYS = "the price stays as it is"


def _text(value: float | None, form: str) -> str:
    return NONE if value is None or not math.isfinite(value) else form.format(value)


def amount(value: float | None) -> str:
    """Two decimals and thousands separators; six significant digits below 1: `0.0812345`."""
    return _text(value, "{:.6g}" if value and abs(value) < 1 else "{:,.2f}")


def money(value: float | None, unit: str) -> str:
    """`67,123.45 USD`."""
    text = amount(value)
    return text if text == NONE else f"{text} {unit}"


def seconds(value: float | None) -> str:
    """`12.3 s`."""
    return _text(value, "{:,.1f} s")


def small(value: float | None) -> str:
    """Four significant digits, for log returns and losses: `0.004213`, `2.1e-07`."""
    return _text(value, "{:.4g}")


def score(value: float | None) -> str:
    """A skill, as in the verdict: `+0.0021`."""
    return _text(value, "{:+,.4f}")


def percent(value: float | None) -> str:
    """A change in percent: `+1.25 %`."""
    return _text(value, "{:+,.2f} %")


def share(value: float | None, *, digits: int = 1) -> str:
    """A fraction as percent: 0.8 → `80.0 %`."""
    return _text(None if value is None else 100 * value, f"{{:.{digits}f}} %")


def count(value: int | None) -> str:
    """`8,760`."""
    return NONE if value is None else f"{value:,d}"


def words(name: str) -> str:
    """The name of a model as words: `seasonal_naive_24` → `seasonal naive 24`."""
    return name.replace("_", " ")


def moment(iso: str | None) -> str:
    """`2024-03-01T12:00:00Z` → `2024-03-01 12:00 UTC`; other texts stay unchanged."""
    if not iso:
        return NONE
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?Z", iso)
    if match is None:
        return iso
    date, minutes, seconds = match.groups()
    return f"{date} {minutes}{seconds if seconds and seconds != ':00' else ''} UTC"


INK = "#1f2933"
INK_ON_DARK = "#e6e9ee"

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True)
class Theme:
    """The colours of a picture on `paper`.

    They are Okabe and Ito's, which colour-blind readers can tell apart; some are darker on white.
    Texts have a contrast of at least 4.5 : 1 to the paper, lines of at least 3 : 1. `series` are
    for lines in no order; the one for the model of the forecast is `forecast`.
    """

    paper: str
    ink: str
    quiet: str
    grid: str
    forecast: str
    persistence: str
    warning: str
    better: str
    series: tuple[str, ...]

    def window(self, position: int) -> str:
        """The colour of the line at this position, from 0; after the last colour the first one."""
        return self.series[position % len(self.series)]

    def shade(self, share: float) -> str:
        """The paper with a share (0 to 1) of the forecast's colour."""
        mixed = (
            round((1 - share) * int(self.paper[at : at + 2], 16)
                  + share * int(self.forecast[at : at + 2], 16))
            for at in (1, 3, 5)
        )  # fmt: skip
        return "#" + "".join(f"{part:02x}" for part in mixed)


LIGHT = Theme(
    "#ffffff", INK, "#5f6b78", "#dfe3e8", "#0072B2", "#C08300", "#D55E00", "#009E73",
    ("#3590CC", "#D55E00", "#009E73", "#CC79A7", "#C08300", "#0072B2"),
)  # fmt: skip
DARK = Theme(
    "#15191e", INK_ON_DARK, "#a3adb8", "#2f3740", "#56B4E9", "#E69F00", "#D55E00", "#009E73",
    ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#1B84C6"),
)  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}


LEVELS = ("actual", "forecast", "persistence", "lower", "upper")
FORECAST_COLUMNS = ("timestamp", *LEVELS, "actual_log_return", "forecast_log_return")
HISTORY_COLUMNS = ("epoch", "loss", "val_loss")


def require_rows(frame: pd.DataFrame, columns: Sequence[str], *, of: str) -> None:
    """As `require`; a frame without a row is refused, too."""
    require(frame, columns, of=of)
    if frame.empty:
        raise DataError(f"the {of} frame has no row; there is nothing to draw")


def require(frame: pd.DataFrame, columns: Sequence[str], *, of: str) -> None:
    """Raise DataError where `frame` lacks one of `columns`; `of` names the frame."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"the {of} frame has no column {', '.join(missing)}; "
            f"found {', '.join(map(str, frame.columns)) or 'none'}"
        )


def typical_step(timestamp: NDArray[np.int64]) -> int:
    """The median distance of consecutive timestamps, in milliseconds; 0 for fewer than two."""
    return int(np.median(np.diff(timestamp))) if timestamp.size > 1 else 0


# More points than a picture has pixels cannot be seen.
MOST_POINTS = 5_000


def thinned(frame: pd.DataFrame, *, most: int = MOST_POINTS) -> pd.DataFrame:
    """At most `most` rows for a picture: every k-th one, back from the last.

    Compute first, then thin: no number comes from thinned rows. The step of the result is k times
    as wide; its holes are still those of `frame`.
    """
    every = max(1, -(-len(frame) // most))
    return frame.iloc[::-1].iloc[::every].iloc[::-1].reset_index(drop=True)


def extremes(lines: pd.DataFrame, by: str, *, most: int = MOST_POINTS) -> pd.DataFrame:
    """About `most` rows of lines from `with_breaks`: of each stretch of equal length those with the
    least and the greatest value of `by`, and both sides of each break.

    So a picture of many rows shows each extreme at its time.
    """
    n = len(lines)
    if n <= most:
        return lines
    width = -(-2 * n // most)
    values = lines[by].to_numpy(np.float64)
    stretches = np.pad(values, (0, -n % width), constant_values=np.nan).reshape(-1, width)
    first, unknown = width * np.arange(len(stretches)), np.isnan(stretches)
    edges = np.flatnonzero(np.diff(np.isnan(values)))
    low = first + np.where(unknown, np.inf, stretches).argmin(axis=1)
    high = first + np.where(unknown, -np.inf, stretches).argmax(axis=1)
    return lines.iloc[np.unique(np.concatenate([low, high, edges, edges + 1, [n - 1]]))]


def with_breaks(
    frame: pd.DataFrame, columns: Sequence[str], *, step_ms: int | None = None
) -> pd.DataFrame:
    """`timestamp` (int64 ms, ascending) and `columns` as float64, with a row of NaN in each hole.

    A hole is where two consecutive timestamps are more than `step_ms` apart. The default is the
    median distance, which fits a grid, also with only every k-th row. The new row lies one step
    after the hole's left edge, so that no line bridges the hole.
    """
    timestamp = frame["timestamp"].to_numpy(np.int64)
    step = typical_step(timestamp) if step_ms is None else step_ms
    left = np.flatnonzero(np.diff(timestamp) > step)
    data: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {
        "timestamp": np.insert(timestamp, left + 1, timestamp[left] + step)
    }
    for name in columns:
        data[name] = np.insert(frame[name].to_numpy(np.float64), left + 1, np.nan)
    return pd.DataFrame(data)


def utc(timestamp: pd.Series) -> NDArray[np.datetime64]:
    """Unix milliseconds as datetime64[ms], in UTC."""
    return timestamp.to_numpy(np.int64).astype("datetime64[ms]")


def squared_error_saved(forecast: pd.DataFrame) -> NDArray[np.float64]:
    """The running sum of persistence's squared error minus the model's, in squared log return.

    `forecast` has all rows. The sum rises where the model is closer than "the price stays as it is"
    and falls where it is farther. Rows without an actual value add zero.
    """
    actual = forecast["actual_log_return"].to_numpy(np.float64)
    missed = actual - forecast["forecast_log_return"].to_numpy(np.float64)
    return np.asarray(np.nancumsum(actual**2 - missed**2), dtype=np.float64)


def returns_reach(forecast: pd.DataFrame) -> float:
    """The range of both axes: the largest actual or predicted log return of all, plus 5 %."""
    known = np.abs(forecast[["actual_log_return", "forecast_log_return"]].to_numpy(np.float64))
    return 1.05 * max(float(np.max(known[np.isfinite(known)], initial=0.0)), 1e-9)
