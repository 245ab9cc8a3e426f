"""What a workspace of `bitstorm.interface` gives to read: its data sets and its training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from bitstorm.backtest import outlook
from bitstorm.context import Context
from bitstorm.core import third_party_noise
from bitstorm.core.arguments import at_least, length
from bitstorm.core.errors import ModelError
from bitstorm.core.results import Listed, Result
from bitstorm.core.schema import FORECASTS, PRICES, indicator_table
from bitstorm.model import blocks
from bitstorm.model import runs as runs_on_disk
from bitstorm.model.series import read_series
from bitstorm.pipelines import runs
from bitstorm.pipelines.indicators import Computed, indicators
from bitstorm.report.style import Mark, ThemeName
from bitstorm.store import petastorm_io, snapshots

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import DataFrame, SparkSession


class DataSet(Result):
    """`prices`, `indicators` or `forecasts` at its newest snapshot, or at the one that `at` names.

    Reading raises `StoreError` where there is no snapshot, or where a file is not as written.
    """

    def __init__(self, context: Context, name: str, snapshot: str | None = None) -> None:
        self._context, self.name, self._pinned = context, name, snapshot

    def at(self, snapshot: str) -> DataSet:
        """The data set at the snapshot of this ID (`history` lists them)."""
        found = DataSet(self._context, self.name, snapshot)
        found._snapshot()
        return found

    @property
    def id(self) -> str:
        """The ID of the snapshot."""
        return self._snapshot().id

    @property
    def path(self) -> Path:
        """The snapshot's folder: a Petastorm data set that other programs can open."""
        return self._snapshot().folder

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._snapshot().manifest.rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns, `month` the last."""
        return [field["name"] for field in self._snapshot().manifest.schema]

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """The times of the first and the last row, UTC; None without rows."""
        manifest = self._snapshot().manifest
        if manifest.first_ms is None or manifest.last_ms is None:
            return None
        return _moment(manifest.first_ms), _moment(manifest.last_ms)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows in the order of time, with all columns or these, in this order.

        `timestamp` is int64, Unix milliseconds UTC; `month` is text. `attrs["source"]` says where
        the prices are from, so that the pictures of `bitstorm.utils` are marked.
        """
        with third_party_noise.without_third_party_warnings():
            frame = petastorm_io.read_frame(self._snapshot(), columns=columns)
        frame.attrs["source"] = mark_of(self._context).source
        return frame

    def to_spark(self, spark: SparkSession | None = None) -> DataFrame:
        """All rows as a DataFrame of this session, or of the session that the commands use."""
        snapshot = self._snapshot()
        table = FORECASTS if self.name == "forecasts" else PRICES
        if self.name == "indicators":
            table = indicator_table(snapshot.manifest.details["windows"])
        if spark is not None:
            return petastorm_io.read_spark(spark, snapshot, table)
        with self._context.spark("to_spark") as found:
            return petastorm_io.read_spark(found, snapshot, table)

    def batch_reader(self, **options: Any) -> Any:
        """petastorm's reader: batches of NumPy arrays, as `make_batch_reader` gives them.

        By default one pass in the order of time, in the calling thread; `options` are those of
        `make_batch_reader`. Close it with a `with` block, or with `stop()` and `join()`.
        """
        return petastorm_io.batch_reader(self._snapshot(), **options)

    def facts(self) -> Mapping[str, Any]:
        """Snapshot, rows, times of the first and the last row (Unix ms UTC), and path."""
        root = self._context.workspace.data_set(self.name)
        found = snapshots.current(root, snapshot=self._pinned)
        if found is None:
            return {"data set": self.name, "snapshot": None}
        manifest = found.manifest
        return {
            "data set": self.name,
            "snapshot": manifest.id,
            "rows": manifest.rows,
            "first_ms": manifest.first_ms,
            "last_ms": manifest.last_ms,
            "path": f"{root}/{snapshots.SNAPSHOTS}/{found.id}",
        }

    def _snapshot(self) -> snapshots.Snapshot:
        root = self._context.workspace.data_set(self.name)
        return snapshots.required(root, snapshot=self._pinned)


class Indicators(DataSet):
    """The data set and the command in one: `ws.indicators()` computes, the rest reads."""

    def __call__(self, *, snapshot: str | None = None) -> Computed:
        """Compute the indicators of the newest prices, or of that snapshot, and publish them."""
        return indicators(replace(self._context, snapshot=snapshot))

    def plot_price(self, *, theme: ThemeName = "light") -> Figure:
        """The price with its averages; holes are shaded."""
        from bitstorm.report import price_figure

        names = ["price", "imputed", *(f"ma_{w}" for w in self._windows)]
        return price_figure(self._points(names), windows=self._windows, **self._look(theme))

    def plot_candles(
        self, period: str | timedelta | None = None, *, last: int = 180, theme: ThemeName = "light"
    ) -> Figure:
        """Candlesticks of the newest `last` bars of `period`, such as `"4h"`; by default of a day,
        and on a grid of days of a week."""
        from bitstorm.report import candle_figure
        from bitstorm.report.plots.price import bars_of, usual_period

        step_ms = blocks.step_of(self._snapshot())
        period_ms = usual_period(step_ms) if period is None else length("period", period)
        bars = bars_of(self._points(["price", "imputed"]), period_ms=period_ms)
        newest = bars.tail(at_least(1, "last", last))
        return candle_figure(newest, period_ms=period_ms, **self._look(theme))

    def plot_volatility(self, *, theme: ThemeName = "light") -> Figure:
        """The volatility by window, and its forecast a day before."""
        from bitstorm.report import volatility_figure

        series = read_series(self._snapshot(), points=outlook.POINTS)
        frame = self._points([f"volatility_{w}" for w in self._windows])
        forecast = outlook.volatility_forecasts(series)
        return volatility_figure(
            frame, windows=self._windows, forecast=forecast, **self._look(theme)
        )

    def plot_drawdown(self, *, theme: ThemeName = "light") -> Figure:
        """How far the price is below its highest so far."""
        from bitstorm.report import drawdown_figure

        return drawdown_figure(self._points(["drawdown"]), **self._look(theme))

    def plot_returns(self, *, theme: ThemeName = "light") -> Figure:
        """The distribution of the returns against the normal and Student's t, and their QQ plot."""
        from bitstorm.report import return_figure

        return return_figure(self._points(["log_return", "imputed"]), **self._look(theme))

    def plot_autocorrelation(self, *, theme: ThemeName = "light") -> Figure:
        """The autocorrelation of the returns and of their sizes, by lag."""
        from bitstorm.report import autocorrelation_figure

        return autocorrelation_figure(self._points(["log_return", "imputed"]), **self._look(theme))

    def plot_hours(self, *, theme: ThemeName = "light") -> Figure:
        """The mean size of the returns by hour (UTC) and weekday; for steps of at most an hour."""
        from bitstorm.report import hours_figure

        return hours_figure(self._points(["log_return", "imputed"]), **self._look(theme))

    @property
    def _windows(self) -> list[int]:
        windows: list[int] = self._snapshot().manifest.details["windows"]
        return windows

    def _points(self, columns: Sequence[str]) -> pd.DataFrame:
        return self.to_pandas(["timestamp", *columns])

    def _look(self, theme: ThemeName) -> dict[str, Any]:
        return {"mark": mark_of(self._context), "theme": theme}


class Run(Result):
    """One training run, read from its folder under `checkpoints/` at each use."""

    def __init__(self, context: Context, name: str) -> None:
        self._context, self.name = context, name

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of its `run.json`: settings, split, scaler, versions, hashes."""
        return self._read().record

    @property
    def state(self) -> str:
        """`running`, `interrupted`, `failed` or `finished`."""
        return self._read().state

    @property
    def metrics(self) -> dict[str, Any]:
        """`epochs`, `best_epoch`, `best_validation_loss` (of the scaled target), `seconds`."""
        facts = self.facts()
        return {name: facts[name] for name in runs.METRICS}

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch: `epoch`, `loss`, `seconds`, `val_loss`."""
        path = self._read().folder / runs_on_disk.HISTORY
        if not path.exists():
            raise ModelError(
                f"run {self.name} is {self.state} and has no complete epoch: no history"
            )
        return pd.read_csv(path)

    def model(self) -> Any:
        """The network with its best weights: called with scaled windows, (n, look_back, features).

        Raises BitstormError where its file is not the one that the record names by its hash.
        """
        found = self._read()
        if found.record.get("backend", "tensorflow") == "tensorflow":
            self._context.load_tensorflow()
        return runs_on_disk.load_network(found)

    def plot(self, *, theme: ThemeName = "light") -> Figure:
        """Training and validation loss of each epoch."""
        from bitstorm.report import training_figure

        best, mark = self.metrics["best_epoch"], mark_of(self._context)
        return training_figure(self.history, mark=mark, best=best, theme=theme)

    def facts(self) -> Mapping[str, Any]:
        """Its line in the list of runs."""
        return runs.show(self._context, self.name).overview.facts()

    def _read(self) -> runs_on_disk.Run:
        return runs_on_disk.find(self._context.workspace.checkpoints, self.name)


class Runs(Sequence[Run]):
    """All training runs, newest first: by place (`runs[0]`) or by name (`runs["2024…"]`)."""

    def __init__(self, context: Context) -> None:
        self._context, self._lines = context, Listed(runs.overviews(context))

    @overload
    def __getitem__(self, place: int | str) -> Run: ...
    @overload
    def __getitem__(self, place: slice) -> list[Run]: ...
    def __getitem__(self, place: int | str | slice) -> Run | list[Run]:
        if isinstance(place, slice):
            return [Run(self._context, line.run) for line in self._lines[place]]
        if isinstance(place, int):
            return Run(self._context, self._lines[place].run)
        found = Run(self._context, place)
        found._read()
        return found

    def __len__(self) -> int:
        return len(self._lines)

    def compare(self, *names: str) -> runs.Compared:
        """The settings and the metrics in which these runs differ."""
        return runs.compare(self._context, names)

    def __repr__(self) -> str:
        return repr(self._lines)

    def _repr_html_(self) -> str:
        return self._lines._repr_html_()


def mark_of(context: Context) -> Mark:
    """The mark of what the workspace holds, or of what the settings say it will."""
    return Mark(**vars(context.workspace.bound_to() or context.origin()))


def _moment(timestamp_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
