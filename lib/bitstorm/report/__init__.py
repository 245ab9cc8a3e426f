"""Pictures, a summary and a dashboard: pandas frames and plain values in, files' contents out.

Every figure function is here: `from bitstorm.report import price_figure`. Each takes `mark` (the
source of the data) and `theme` (`light` or `dark`), and returns a Matplotlib figure.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitstorm.report.plots.backtest import (
        coverage_figure,
        error_figure,
        evidence_figure,
        folds_figure,
        skill_figure,
    )
    from bitstorm.report.plots.forecast import fan_figure, test_figure
    from bitstorm.report.plots.price import (
        candle_figure,
        drawdown_figure,
        price_figure,
        volatility_figure,
    )
    from bitstorm.report.plots.returns import autocorrelation_figure, hours_figure, return_figure
    from bitstorm.report.plots.training import importance_figure, training_figure

__all__ = [
    "autocorrelation_figure",
    "candle_figure",
    "coverage_figure",
    "drawdown_figure",
    "error_figure",
    "evidence_figure",
    "fan_figure",
    "folds_figure",
    "hours_figure",
    "importance_figure",
    "price_figure",
    "return_figure",
    "skill_figure",
    "test_figure",
    "training_figure",
    "volatility_figure",
]


# Loaded at the first use: the command line imports this package, and Matplotlib is slow.
_PLACES = {
    "price": {"candle_figure", "drawdown_figure", "price_figure", "volatility_figure"},
    "returns": {"autocorrelation_figure", "hours_figure", "return_figure"},
    "forecast": {"fan_figure", "test_figure"},
    "backtest": {
        "coverage_figure", "error_figure", "evidence_figure", "folds_figure", "skill_figure",
    },
    "training": {"importance_figure", "training_figure"},
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.plots.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
