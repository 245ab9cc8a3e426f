"""Arrays, frames and numbers as plain values for JSON: of the page, and of metrics.json."""

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
_FEW_DIGITS, DIGITS = 7, 9
# These tell any two floats apart.
_ALL_DIGITS = 17


def listed(values: np.ndarray) -> list[float | None]:
    """Floats with seven significant digits; None where a value is not finite."""
    return [_short(value, _FEW_DIGITS) for value in np.asarray(values, np.float64).tolist()]


def columns_of(
    frame: pd.DataFrame, names: Sequence[str], *, most: int = MOST_POINTS
) -> dict[str, list[float | None]]:
    """`timestamp` (int) and the columns, of at most `most` rows."""
    rows = style.thinned(frame, most=most)
    columns = {name: listed(rows[name].to_numpy(np.float64)) for name in names}
    return {"timestamp": rows["timestamp"].tolist(), **columns}


def plain(value: Any, *, digits: int = _ALL_DIGITS) -> Any:
    """The value for JSON: NumPy's types as Python's, floats with so many significant digits, None
    for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits=digits) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), digits=digits)
    if isinstance(value, float):
        return _short(value, digits)
    several = isinstance(value, list | tuple)
    return [plain(item, digits=digits) for item in value] if several else value


def _short(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
