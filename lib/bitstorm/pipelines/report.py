"""`report`: the last forecast → pictures, summary and dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.results import Result
from bitstorm.model import blocks, runs
from bitstorm.pipelines.report_page import dashboard_page, read_metrics
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
    prices = thinned_prices(snapshot, windows)
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
    _, page = dashboard_page(context)
    write_text(folder / "dashboard.html", page)
    written = (*pictures, "summary.txt", "dashboard.html")
    for name in written:
        durable_io.delete_leftovers(folder / name)
    return Report(str(folder), written)


def thinned_prices(snapshot: snapshots.Snapshot, windows: Sequence[int]) -> pd.DataFrame:
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
