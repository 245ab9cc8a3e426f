"""Arrays and frames as lists for the page's JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.report import style

# Some points fewer than a chart has pixels, and for the test part some more.
MOST_POINTS, MOST_TESTED = 700, 1_000
# Of a chart's values; and of all others, which tell any two float32 apart.
_DIGITS, _MOST_DIGITS = 7, 9


def listed(values: np.ndarray) -> list[float | None]:
    """Floats with seven significant digits; None where a value is not finite."""
    return [_short(value, _DIGITS) for value in np.asarray(values, np.float64).tolist()]


def columns_of(
    frame: pd.DataFrame, names: Sequence[str], *, most: int = MOST_POINTS
) -> dict[str, list[float | None]]:
    """`timestamp` (int) and the columns, of at most `most` rows."""
    rows = style.thinned(frame, most=most)
    columns = {name: listed(rows[name].to_numpy(np.float64)) for name in names}
    return {"timestamp": rows["timestamp"].tolist(), **columns}


def plain(value: Any) -> Any:
    """The value for JSON: NumPy's types as Python's, floats with nine significant digits, None for
    those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return _short(value, _MOST_DIGITS)
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
