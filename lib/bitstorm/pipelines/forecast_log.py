"""Appends the newest forecast to the log `forecasts`."""

from __future__ import annotations

import numpy as np

from bitstorm.backtest import forecast_log
from bitstorm.backtest.forecast_log import Made
from bitstorm.context import Context
from bitstorm.core.schema import FORECASTS, LEVELS
from bitstorm.core.time import iso, now_ms
from bitstorm.evaluation.comparison import Interval
from bitstorm.model import blocks
from bitstorm.model.runs import Run, settings_of
from bitstorm.store import snapshots
from bitstorm.store.append import append
from bitstorm.store.snapshots import Snapshot


def log_forecast(
    context: Context,
    run: Run,
    indicators: Snapshot,
    ahead: tuple[np.ndarray, np.ndarray, np.ndarray],
    band: Interval,
) -> None:
    """Append a forecast, of `predict_steps` for one window, to `forecasts`. `band` is the interval
    of the network's own step; the other steps have none.

    Its steps are stored whose outcome is later than every price in the store and, where prices are
    collected live, than the clock. Raises StoreError.
    """
    origin, price, returns = (values[0] for values in ahead)
    bounds = np.full((len(returns), len(LEVELS), 2), np.nan)
    own = slice(step := settings_of(run).horizon - 1, step + 1)
    ends = np.stack(band.around(price * np.exp(returns[own])), axis=-1)
    bounds[own, np.isclose(LEVELS, 100 * band.level)] = ends
    workspace = context.workspace
    bound = workspace.bound_to() or context.origin()
    newest = [blocks.span_of(indicators)[1]]
    for root in (workspace.prices, workspace.indicators):
        current = snapshots.current(root)
        newest += [] if current is None else [current.manifest.last_ms or 0]
    made = Made(run.name, indicators.id, indicators.manifest.digest, now_ms(), max(newest))
    rows = forecast_log.to_rows(
        made,
        origin=int(origin),
        origin_price=float(price),
        log_returns=returns,
        bounds=bounds,
        step_ms=blocks.step_of(indicators),
    )
    sealed = forecast_log.only_sealed(rows, by_clock=bound.source == "coingecko")
    if passed := rows.num_rows - sealed.num_rows:
        context.console.warn(
            f"the times of {passed} of {rows.num_rows} steps have passed (made at "
            f"{iso(made.made_at)}, newest price of {iso(made.known_until)}): the log stores "
            "forecasts before their outcome; collect, ingest and compute indicators first"
        )
    if sealed.num_rows:
        wait = context.settings.ingest.lock_seconds
        count = append(workspace.forecasts, FORECASTS, sealed, lock_seconds=wait)
        context.console.log(f"{count} of {sealed.num_rows} steps are new in forecasts/")
