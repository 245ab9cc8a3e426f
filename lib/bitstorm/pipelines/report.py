"""`report`: the last forecast → pictures, summary and dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bitstorm.backtest import outlook
from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.model import blocks, runs
from bitstorm.model.series import read_series
from bitstorm.report import dashboard
from bitstorm.report.style import MOST_POINTS
from bitstorm.report.summary import mark_of, summary_text, write_text
from bitstorm.store import petastorm_io, snapshots


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
    from bitstorm.report import canvas, pictures

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
    points = petastorm_io.read_frame(snapshot, columns=pictures.columns_of(windows))
    ahead = outlook.volatility_forecasts(read_series(snapshot, points=outlook.POINTS))
    drawn = pictures.report_pictures(
        points, forecast=forecast, metrics=metrics, history=history, windows=windows,
        volatility=ahead,
    )  # fmt: skip
    files = canvas.save(drawn, folder)
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
    return Report(str(folder), (*files, "summary.txt", "dashboard.html"))


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
