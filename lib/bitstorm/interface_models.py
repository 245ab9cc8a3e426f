"""The methods of `interface.Workspace` for indicators, models and forecasts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from bitstorm.backtest.reproduce import Reproduced
from bitstorm.context import Context
from bitstorm.core.arguments import at_least, length
from bitstorm.core.errors import UsageError
from bitstorm.evaluation.markets import Proof
from bitstorm.pipelines.backtest import Backtested
from bitstorm.pipelines.backtest import backtest as run_backtest
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.forecast_score import Scored, score
from bitstorm.pipelines.leakage import Checked, check_leakage
from bitstorm.pipelines.lookahead import Looked, check_lookahead
from bitstorm.pipelines.report import Report, report
from bitstorm.pipelines.reproduce import reproduce
from bitstorm.pipelines.stats import Stats, stats
from bitstorm.pipelines.train import train
from bitstorm.pipelines.tune import Tuned
from bitstorm.pipelines.tune import tune as run_tune
from bitstorm.pipelines.verdict import Verdict, prove_verdict, verdict
from bitstorm.readers import Run
from bitstorm.report.summary import Forecast


class Models(ABC):
    """The half of a workspace that needs indicators."""

    _values: dict[str, Any]

    @abstractmethod
    def _context(
        self, snapshot: str | None = None, values: Mapping[str, Any] | None = None
    ) -> Context:
        """What a command is given; with `values`, under other settings."""

    def stats(
        self,
        *,
        period: str | timedelta = "1d",
        bars: int = 10,
        lags: Sequence[int] = (1, 24, 168),
        output: str | Path | None = None,
        snapshot: str | None = None,
    ) -> Stats:
        """Statistics of the returns, and the newest `bars` bars of `period`.

        Args:
            period: Length of a bar, such as `"4h"`.
            lags: Lags of the autocorrelation, in steps of the grid.
            output: A CSV file for all bars.
            snapshot: A snapshot of prices or indicators; by default the newest of each.
        """
        return stats(
            self._context(snapshot),
            period_ms=length("period", period),
            bars=at_least(0, "bars", bars),
            lags=lags,
            output=None if output is None else Path(output),
        )

    def check_lookahead(
        self,
        *,
        cuts: int = 5,
        seed: int | None = None,
        plant: bool = False,
        snapshot: str | None = None,
    ) -> Looked:
        """Check that no indicator depends on later prices; `passed` says so."""
        cuts = at_least(1, "cuts", cuts)
        return check_lookahead(self._context(snapshot), cuts=cuts, seed=seed, plant=plant)

    def train(
        self,
        *,
        resume: str | None = None,
        accept_snapshot: bool = False,
        snapshot: str | None = None,
        **training: Any,
    ) -> Run:
        """Train a network on the indicators.

        Args:
            resume: Continue this run after its last complete epoch.
            accept_snapshot: Continue it on another snapshot.
            snapshot: Of the indicators; by default the newest.
            training: Settings of the section `training` for this run: `epochs=6`,
                `backend="torch"`, `workers=2`.
        """
        if accept_snapshot and resume is None:
            raise UsageError("accept_snapshot belongs to resume: name the run to continue")
        values = {f"training.{name}": value for name, value in training.items()}
        context = self._context(snapshot, {**self._values, **values})
        made = train(context, resume=resume, accept_snapshot=accept_snapshot)
        return Run(self._context(), made.run)

    def backtest(self, *, snapshot: str | None = None, **backtest: Any) -> Backtested:
        """Test the network and the baselines on folds of the past.

        The same settings on the same snapshot continue a back-test that was stopped.

        Args:
            snapshot: Of the indicators; by default the newest.
            backtest: Settings of the section `backtest` for this one: `folds=3`,
                `scheme="sliding"`.
        """
        values = {f"backtest.{name}": value for name, value in backtest.items()}
        return run_backtest(self._context(snapshot, {**self._values, **values}))

    def reproduce(self, run: str, *, train: bool = True) -> Reproduced:
        """Make a finished run again from its record, and compare both; `equal` says so.

        Args:
            run: Its name.
            train: Whether to train the network again, too.
        """
        return reproduce(self._context(), run, train=train)

    def check_leakage(
        self,
        *,
        cuts: int = 2,
        seed: int | None = None,
        plant: str | None = None,
        network: bool = False,
        snapshot: str | None = None,
    ) -> Checked:
        """Check that no part of a back-test depends on later prices; `passed` says so.

        Args:
            cuts: Random times in the test parts; each fold has three more.
            seed: Of these times.
            plant: A leak to add, which has to be found: `"scaler"`, `"embargo"`, …
            network: Train a small network, too.
            snapshot: Of the indicators; by default the newest.
        """
        at_least(1, "cuts", cuts)
        context = self._context(snapshot)
        return check_leakage(context, cuts=cuts, seed=seed, plant=plant, network=network)

    def tune(self, *, apply: bool = False, snapshot: str | None = None, **tune: Any) -> Tuned:
        """Search for better settings of `training`; `tune` are settings of its own section. With
        `apply` write them as `tuning/best.yaml`, for `config`."""
        values = {f"tune.{name}": value for name, value in tune.items()}
        return run_tune(self._context(snapshot, {**self._values, **values}), apply=apply)

    def forecast(self, *, run: str | None = None, snapshot: str | None = None) -> Forecast:
        """Forecast the test part and the next steps with a run; by default the newest promoted one,
        or the newest where none is."""
        return forecast(self._context(snapshot), run=run)

    def verdict(self) -> Verdict:
        """Whether the last forecast is informative, more accurate, and worth its costs."""
        return verdict(self._context())

    def prove_verdict(self, *, markets: int = 1_000, seed: int = 1) -> Proof:
        """Measure on simulated markets how often each grade is right and wrong."""
        markets, seed = at_least(1, "markets", markets), at_least(0, "seed", seed)
        return prove_verdict(self._context(), markets=markets, seed=seed)

    def score(self, *, snapshot: str | None = None) -> Scored:
        """Compare all stored forecasts with the prices that came."""
        return score(self._context(snapshot))

    def report(self) -> Report:
        """Write plots, summary and dashboard of the last forecast into `reports/`."""
        return report(self._context())
