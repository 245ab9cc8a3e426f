"""`report`: the last forecast → pictures, summary and dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bitstorm.backtest import outlook
from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.results import Result
from bitstorm.model import blocks, runs
from bitstorm.model.series import read_series
from bitstorm.pipelines.report_page import dashboard_page
from bitstorm.report.summary import read_metrics, summary_text, write_text
from bitstorm.store import snapshots

# The pictures are of at most so many points.
MOST_COUNTED = 1_000_000


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
    forecast = pd.read_csv(folder / "forecast.csv")
    run = runs.newest(context.workspace.checkpoints, name=metrics["run"])
    history = pd.read_csv(run.folder / runs.HISTORY)
    ahead = outlook.volatility_forecasts(read_series(snapshot, points=outlook.POINTS))
    columns, few = pictures.columns_of(windows), snapshot.manifest.rows <= MOST_COUNTED
    newest = _newest(snapshot, columns)
    drawn = pictures.report_pictures(
        newest,
        whole=newest if few else _every_kth(snapshot, columns, most=MOST_COUNTED),
        forecast=forecast,
        metrics=metrics,
        history=history,
        windows=windows,
        volatility=ahead,
    )
    files = canvas.save(drawn, folder)
    write_text(folder / "summary.txt", summary_text(metrics))
    _, page = dashboard_page(context)
    write_text(folder / "dashboard.html", page)
    written = (*files, "summary.txt", "dashboard.html")
    for name in written:
        durable_io.delete_leftovers(folder / name)
    return Report(str(folder), written)


def _newest(snapshot: snapshots.Snapshot, columns: Sequence[str]) -> pd.DataFrame:
    """The newest MOST_COUNTED points, which a driver can hold; reads file by file."""
    _, last = blocks.span_of(snapshot)
    after = last - MOST_COUNTED * blocks.step_of(snapshot)
    frame = pd.concat(
        [table.to_pandas() for table in blocks.tables(snapshot, columns, after_ms=after)],
        ignore_index=True,
    )
    return frame[frame["timestamp"] > after].reset_index(drop=True)


def _every_kth(snapshot: snapshots.Snapshot, columns: Sequence[str], *, most: int) -> pd.DataFrame:
    """At most `most` points, evenly spaced, with the newest one; reads file by file."""
    step_ms, (_, last) = blocks.step_of(snapshot), blocks.span_of(snapshot)
    every = -(-snapshot.manifest.rows // most)
    pieces = []
    for table in blocks.tables(snapshot, columns):
        rows = table.to_pandas()
        back = (last - rows["timestamp"]) // step_ms
        pieces.append(rows[back % every == 0])
    return pd.concat(pieces, ignore_index=True)
