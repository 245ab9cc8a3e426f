"""The dashboard's HTML, from all that the workspace has."""

from __future__ import annotations

from base64 import b64encode

import pandas as pd

from bitstorm.context import Context
from bitstorm.core.config import Loaded
from bitstorm.core.time import now_ms
from bitstorm.model import runs
from bitstorm.pipelines.report_judged import read_backtest, read_log, read_prices
from bitstorm.pipelines.report_lineage import read_lineage
from bitstorm.pipelines.report_sources import read_grid, read_state
from bitstorm.report.dashboard import dashboard_html
from bitstorm.report.page import Found, page_data
from bitstorm.report.summary import read_metrics
from bitstorm.store import snapshots


def dashboard_page(context: Context, *, served: bool = False) -> tuple[str, str]:
    """When the page is made (ISO, UTC), and its HTML. A `served` page looks for a newer one.

    Raises DataError where there is no forecast, SnapshotMissing where there are no indicators, and
    ModelError where the forecast's run is gone.
    """
    found, levels = found_of(context)
    page = page_data(found)
    return page["made"], dashboard_html(page, levels, served=served)


def found_of(context: Context) -> tuple[Found, list[str]]:
    """What the workspace has, and the levels of its series in base64."""
    folder = context.workspace.reports
    metrics = read_metrics(folder / "metrics.json")
    forecast = pd.read_csv(folder / "forecast.csv")
    # The newest indicators: they can be newer than the forecast, whose outcomes they have then.
    snapshot = snapshots.required(context.workspace.indicators)
    run = runs.newest(context.workspace.checkpoints, name=metrics["run"])
    grid = read_grid(snapshot)
    found = Found(
        made_ms=now_ms(),
        metrics=metrics,
        grid=grid,
        forecast=forecast,
        history=pd.read_csv(run.folder / runs.HISTORY),
        prices=read_prices(snapshot, metrics),
        state=read_state(context, frequency=grid.frequency),
        backtest=read_backtest(context),
        log=read_log(context),
        lineage=read_lineage(context, metrics),
        settings=Loaded(context.settings, context.origins).rows(),
    )
    return found, [b64encode(level.to_bytes()).decode() for level in grid.levels]
