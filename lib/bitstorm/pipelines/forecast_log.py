"""Appends the newest forecast to the log `forecasts`."""

from __future__ import annotations

import numpy as np

from bitstorm.backtest import forecast_log
from bitstorm.backtest.forecast_log import Made
from bitstorm.backtest.outlook import Outlook
from bitstorm.context import Context
from bitstorm.core.schema import FORECASTS, LEVELS
from bitstorm.core.time import iso, now_ms
from bitstorm.model import blocks
from bitstorm.store import snapshots
from bitstorm.store.append import append
from bitstorm.store.snapshots import Snapshot


def log_forecast(context: Context, outlook: Outlook, indicators: Snapshot) -> None:
    """Append the newest forecast to `forecasts`.

    Its steps are stored whose outcome is later than every price in the store and, where prices are
    collected live, than the clock. Raises StoreError.
    """
    if not np.isfinite(outlook.forecast).all():
        return
    columns = [outlook.levels.index(level / 100) for level in LEVELS]
    bounds = np.stack([outlook.lower[:, columns], outlook.upper[:, columns]], axis=-1)
    workspace = context.workspace
    bound = workspace.bound_to() or context.origin()
    newest = [blocks.span_of(indicators)[1]]
    for root in (workspace.prices, workspace.indicators):
        current = snapshots.current(root)
        newest += [] if current is None else [current.manifest.last_ms or 0]
    made = Made(
        outlook.choice.model, indicators.id, indicators.manifest.digest, now_ms(), max(newest)
    )
    rows = forecast_log.to_rows(
        made,
        origin=outlook.origin_ms,
        origin_price=outlook.origin_price,
        log_returns=np.log(outlook.forecast / outlook.origin_price),
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
