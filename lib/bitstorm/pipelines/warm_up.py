"""How many rows of a series a feature, and a first window, need before they have a value."""

from __future__ import annotations

from collections.abc import Sequence

_FIRST = {
    "price": 0,
    "drawdown": 0,
    "log_return": 1,
    "rsi_14": 14,
    "bollinger_upper_20": 19,
    "bollinger_lower_20": 19,
    "macd": 25,
    "macd_signal": 33,
}
# Averages count prices, a volatility changes: one price more.
_FIRST_OF_WIDTH = {"ma": -1, "ema": -1, "volatility": 0}


def rows_before(feature: str, *, windows: Sequence[int]) -> int:
    """Rows of a series, without a hole, before the first one with a value of the feature."""
    if feature in _FIRST:
        return _FIRST[feature]
    if feature == "trend":
        return max(windows) - 1
    kind, _, width = feature.rpartition("_")
    return int(width) + _FIRST_OF_WIDTH[kind]


def rows_needed(
    features: Sequence[str], *, windows: Sequence[int], look_back: int, horizon: int
) -> int:
    """Rows before the first target that a network can be given."""
    slowest = max(rows_before(feature, windows=windows) for feature in features)
    return slowest + look_back - 1 + horizon
