"""Bitcoin price batches → Spark → Petastorm → LSTM → a forecast you can trust.

import bitstorm

ws = bitstorm.open_workspace("workspace", settings={"backfill.days": 120})
ws.backfill(); ws.ingest(); ws.indicators()
ws.indicators.to_pandas()
run = ws.train(epochs=6)
ws.forecast().plot()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitstorm.core.errors import BitstormError, NothingToDo, SourceError, StoreError, UsageError
    from bitstorm.interface import Workspace, open_workspace
    from bitstorm.readers import DataSet, Indicators, Run, Runs
    from bitstorm.report.summary import Forecast

__version__ = "0.1.0"

__all__ = [
    "BitstormError",
    "DataSet",
    "Forecast",
    "Indicators",
    "NothingToDo",
    "Run",
    "Runs",
    "SourceError",
    "StoreError",
    "UsageError",
    "Workspace",
    "open_workspace",
]


# Loaded at the first use: the command line imports this package for its version, and must be quick.
_PLACES = {
    "bitstorm.core.errors": {
        "BitstormError", "NothingToDo", "SourceError", "StoreError", "UsageError",
    },
    "bitstorm.interface": {"Workspace", "open_workspace"},
    "bitstorm.report.summary": {"Forecast"},
    "bitstorm.readers": {"DataSet", "Indicators", "Run", "Runs"},
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(place), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
