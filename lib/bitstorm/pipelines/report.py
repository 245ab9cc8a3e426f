"""`report`: the last forecast → pictures, summary and dashboard."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bitstorm.context import Context
from bitstorm.core.config import Loaded
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.time import now_ms
from bitstorm.model import blocks, runs
from bitstorm.pipelines.report_judged import read_backtest, read_log, read_prices
from bitstorm.pipelines.report_sources import read_grid, read_lineage, read_state
from bitstorm.report import dashboard
from bitstorm.report.page import Found
from bitstorm.report.style import MOST_POINTS
from bitstorm.report.summary import forecast_picture, mark_of, summary_text, write_text
from bitstorm.store import snapshots


@dataclass(frozen=True, repr=False)
class Report(Result):
    """The names of the written files, in `folder`."""

    folder: str
    files: tuple[str, ...]


def report(context: Context) -> Report:
    """Write the pictures, `summary.txt` and `dashboard.html` of the last forecast.

    Raises DataError where there is no forecast, and SnapshotMissing or ModelError where its
    indicators or its run are missing.
    """
    from bitstorm.report import canvas, plots

    folder = context.workspace.reports
    metrics = read_metrics(folder / "metrics.json")
    snapshot = snapshots.required(
        context.workspace.indicators, snapshot=metrics["snapshot"]["indicators"]
    )
    windows: list[int] = snapshot.manifest.details["windows"]
    prices = _prices(snapshot, windows)
    forecast = pd.read_csv(folder / "forecast.csv")
    run = runs.newest(context.workspace.checkpoints, name=metrics["run"])
    history = pd.read_csv(run.folder / runs.HISTORY)
    mark = mark_of(metrics)
    pictures = {
        "price.png": plots.price_figure(prices, windows=windows, mark=mark),
        "volatility.png": plots.volatility_figure(prices, windows=windows, mark=mark),
        "forecast.png": forecast_picture(forecast, metrics),
        "training.png": plots.training_figure(
            history, mark=mark, best=metrics["training"]["best_epoch"]
        ),
    }
    for name, figure in pictures.items():
        canvas.save_png(figure, folder / name)
    write_text(folder / "summary.txt", summary_text(metrics))
    page = dashboard.dashboard_html(
        metrics=metrics,
        prices=prices,
        forecast=forecast,
        history=history,
        windows=windows,
        mark=mark,
    )
    write_text(folder / "dashboard.html", page)
    return Report(str(folder), (*pictures, "summary.txt", "dashboard.html"))


def found_of(context: Context) -> tuple[Found, list[str]]:
    """What the workspace has for the dashboard, and the levels of its series in base64.

    Raises DataError where there is no forecast, and SnapshotMissing or ModelError where there are
    no indicators or the forecast's run is gone.
    """
    folder = context.workspace.reports
    metrics = read_metrics(folder / "metrics.json")
    snapshot = snapshots.required(context.workspace.indicators)
    run = runs.newest(context.workspace.checkpoints, name=metrics["run"])
    grid = read_grid(snapshot)
    found = Found(
        made_ms=now_ms(),
        metrics=metrics,
        grid=grid,
        forecast=pd.read_csv(folder / "forecast.csv"),
        history=pd.read_csv(run.folder / runs.HISTORY),
        prices=read_prices(snapshot, metrics),
        state=read_state(context),
        backtest=read_backtest(context),
        log=read_log(context),
        lineage=read_lineage(context, metrics),
        settings=Loaded(context.settings, context.origins).rows(),
    )
    return found, [b64encode(level.to_bytes()).decode() for level in grid.levels]


def _prices(snapshot: snapshots.Snapshot, windows: Sequence[int]) -> pd.DataFrame:
    """At most MOST_POINTS points of the grid, evenly spaced, with the newest one; reads file by
    file."""
    moving = [f"{name}_{w}" for name in ("ma", "volatility") for w in windows]
    wanted = ["timestamp", "price", "imputed", *moving, "rsi_14", "drawdown"]
    step_ms, (_, last) = blocks.step_of(snapshot), blocks.span_of(snapshot)
    every = -(-snapshot.manifest.rows // MOST_POINTS)
    pieces = []
    for table in blocks.tables(snapshot, wanted):
        rows = table.to_pandas()
        back = (last - rows["timestamp"]) // step_ms
        pieces.append(rows[back % every == 0])
    return pd.concat(pieces, ignore_index=True)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of metrics.json. Raises DataError where there is none, or it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"there is no {path.name} in {path.parent}: run `bitstorm forecast` first"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}): run `bitstorm forecast` again") from None
