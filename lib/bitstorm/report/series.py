"""Series as pictures need them: cut where nothing was observed, errors beside persistence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitstorm.core.errors import DataError

FORECAST_COLUMNS = (
    "timestamp",
    "actual",
    "forecast",
    "persistence",
    "lower",
    "upper",
    "actual_log_return",
    "forecast_log_return",
)
HISTORY_COLUMNS = ("epoch", "loss", "val_loss")


def require(frame: pd.DataFrame, columns: Sequence[str], *, of: str) -> None:
    """Raise DataError when `frame` lacks one of `columns`; `of` names the frame."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"the {of} frame has no column {', '.join(missing)}; "
            f"found {', '.join(map(str, frame.columns)) or 'none'}"
        )


def typical_step(timestamp: NDArray[np.int64]) -> int:
    """The median distance of consecutive timestamps, in milliseconds; 0 for fewer than two."""
    return int(np.median(np.diff(timestamp))) if timestamp.size > 1 else 0


def with_breaks(
    frame: pd.DataFrame, columns: Sequence[str], *, step_ms: int | None = None
) -> pd.DataFrame:
    """`timestamp` (int64 ms, ascending) and `columns` as float64, a row of NaN inside each hole.

    A hole is where two consecutive timestamps lie more than `step_ms` apart (by default the
    median distance: right for a grid, and for a grid of which every k-th row was kept). The
    inserted row lies one step after the hole's left edge, so that no line bridges the hole.
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
    """datetime64[ms] of Unix milliseconds; the zone is UTC by convention."""
    return timestamp.to_numpy(np.int64).astype("datetime64[ms]")


def squared_error_saved(forecast: pd.DataFrame) -> NDArray[np.float64]:
    """Running sum of persistence's squared error less the model's, in squared log return.

    It rises where the model is closer than "the price stays as it is" and falls where it is
    farther. Rows without an actual value count as nothing.
    """
    actual = forecast["actual_log_return"].to_numpy(np.float64)
    missed = actual - forecast["forecast_log_return"].to_numpy(np.float64)
    return np.asarray(np.nancumsum(actual**2 - missed**2), dtype=np.float64)


def returns_reach(forecast: pd.DataFrame) -> float:
    """The largest log return, actual or predicted, with 5 % to spare: the range of both axes."""
    known = np.abs(forecast[["actual_log_return", "forecast_log_return"]].to_numpy(np.float64))
    return 1.05 * max(float(np.max(known[np.isfinite(known)], initial=0.0)), 1e-9)
