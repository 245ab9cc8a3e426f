"""What results of the pipelines inherit, to draw themselves from the files of their workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bitstorm.backtest import files
from bitstorm.backtest.study import STUDY
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.schema import FORECASTS
from bitstorm.core.workspace import Workspace
from bitstorm.model import blocks
from bitstorm.report import summary
from bitstorm.report.style import UNKNOWN, Mark, ThemeName
from bitstorm.report.summary import PAST_STEPS
from bitstorm.store import snapshots
from bitstorm.store.append import stored_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mark_of(workspace: Workspace) -> Mark:
    """The mark of what the workspace holds."""
    bound = workspace.bound_to()
    return Mark(UNKNOWN, "bitcoin", "usd") if bound is None else Mark(**vars(bound))


class BacktestPictures(Result):
    """The pictures of the back-test in `folder`. Each raises DataError where its files are gone,
    and UsageError for an unknown theme."""

    folder: str

    def plot_folds(self, *, theme: ThemeName = "light") -> Figure:
        """The parts of each fold in time, and the network's skill with its 90 % interval."""
        from bitstorm.report import folds_figure

        folds, skills = self._read(files.RECORD)["folds"], self._metrics["folds"]
        return folds_figure(folds, skills, mark=self._mark, theme=theme)

    def plot_skill(self, *, theme: ThemeName = "light") -> Figure:
        """The skill of each model by step."""
        from bitstorm.report import skill_figure

        return skill_figure(self._metrics["models"], mark=self._mark, theme=theme)

    def plot_errors(self, *, theme: ThemeName = "light") -> Figure:
        """The error of each model by step."""
        from bitstorm.report import error_figure

        return error_figure(self._metrics["models"], mark=self._mark, theme=theme)

    def plot_coverage(self, *, theme: ThemeName = "light") -> Figure:
        """How far the coverage of the intervals is from the nominal level, by regime."""
        from bitstorm.report import coverage_figure

        return coverage_figure(self._metrics["intervals"], mark=self._mark, theme=theme)

    def plot_evidence(self, *, theme: ThemeName = "light") -> Figure:
        """The e-values of the network's forecasts of step 1 over time."""
        from bitstorm.report import evidence_figure

        path = Path(self.folder) / files.EVIDENCE
        evidence = files.read_frame(path)
        if evidence is None:
            raise DataError(f"there is no {path}: run `bitstorm backtest` again")
        return evidence_figure(evidence, mark=self._mark, theme=theme)

    @property
    def _mark(self) -> Mark:
        return summary.mark_of(self._metrics)

    @property
    def _metrics(self) -> Mapping[str, Any]:
        return self._read(files.METRICS)

    def _read(self, name: str) -> Mapping[str, Any]:
        return _read_json(Path(self.folder) / name, command="backtest")


class TunePicture(Result):
    """The picture of the study in `folder`."""

    folder: str
    importance: Mapping[str, float]

    def plot(self, *, theme: ThemeName = "light") -> Figure:
        """The weight of each setting in whether a trial is good. Raises DataError where fewer than
        eight trials are complete, and UsageError for an unknown theme."""
        from bitstorm.report import importance_figure

        record = _read_json(Path(self.folder) / STUDY, command="tune")
        return importance_figure(self.importance, mark=summary.mark_of(record), theme=theme)


class ScorePicture(Result):
    """The picture of the log `forecasts` against `indicators` (snapshots) of the workspace, whose
    data sets are in the `store`, if any."""

    workspace: str
    store: str | None
    forecasts: str
    indicators: str

    def plot(self, *, theme: ThemeName = "light") -> Figure:
        """The newest forecast of which an outcome is known, with the prices that came; the newest
        of all where none is known. Raises SnapshotMissing where a snapshot is gone, and UsageError
        for an unknown theme."""
        from bitstorm.report import fan_figure

        workspace = Workspace(Path(self.workspace)).with_store(self.store)
        log = snapshots.required(workspace.forecasts, snapshot=self.forecasts)
        indicators = snapshots.required(workspace.indicators, snapshot=self.indicators)
        rows = stored_rows(log, FORECASTS).to_pandas()
        step, (_, last) = blocks.step_of(indicators), blocks.span_of(indicators)
        known = rows[rows["timestamp"] <= last]
        newest = (rows if known.empty else known).sort_values(["origin", "made_at"]).iloc[-1]
        same = (rows["origin"] == newest["origin"]) & (rows["run"] == newest["run"])
        fan = rows[same].sort_values("step", ignore_index=True)
        origin = int(newest["origin"])
        first, prices = blocks.observed_prices(indicators, after_ms=origin - PAST_STEPS * step)
        seen = pd.DataFrame({"timestamp": first + step * np.arange(len(prices)), "price": prices})
        came = fan[["timestamp"]].merge(seen, how="left")["price"]
        return fan_figure(
            fan.assign(actual=came),
            mark=mark_of(workspace),
            theme=theme,
            past=seen[seen["timestamp"] <= origin],
            model=str(newest["run"]),
        )


def _read_json(path: Path, *, command: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"there is no {path}: run `bitstorm {command}` again") from None
