"""Every value on the way from the grid's points to a forecast, and the time at which it is known.

The product's own functions compute them. All indexes are grid indexes: timestamp // step. `points`
are the columns of `blocks.from_points` in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitstorm.backtest import fold as folding
from bitstorm.backtest.fold import Work
from bitstorm.backtest.folds import Fold
from bitstorm.core.settings import Training
from bitstorm.evaluation import baselines, intervals, skill_tests, volatility, volatility_features
from bitstorm.model import blocks, dataset, windowing
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import Columns, WindowSpec

# The models of the volatility; recipe A has the others in it.
VOLATILITIES = ("persistence", "ewma", "har", "log_har", "recipe_a")

# A further feature from the points, float64 (points,); NaN where missing.
MakeColumn = Callable[[Columns, WindowSpec], np.ndarray]


@dataclass(frozen=True)
class Way:
    """The functions that lead from points to forecasts: the product's. A plant replaces one."""

    columns: Mapping[str, MakeColumn] = field(default_factory=dict)
    fold: Callable[[Fold], Fold] = lambda fold: fold
    fitted_spans: Callable[..., dict[str, tuple[int, int]]] = folding.fitted_spans
    fit_scaler: Callable[..., Scaler] = folding.fit_scaler
    baseline_returns: Callable[..., dict[str, np.ndarray]] = folding.baseline_returns
    step_variances: Callable[..., np.ndarray] = volatility_features.step_variances
    terciles: Callable[..., np.ndarray] = intervals.terciles
    calibrate: Callable[..., np.ndarray] = intervals.calibrate


@dataclass(frozen=True)
class Setup:
    """What a back-test takes from its settings, and the way; `spec` has the way's columns, too."""

    spec: WindowSpec
    folds: Sequence[Fold]
    training: Training
    baselines: Sequence[str]
    steps: int
    way: Way = field(default_factory=Way)

    def through(self, way: Way) -> Setup:
        """The same by another way."""
        spec = replace(self.spec, features=(*self.spec.features, *way.columns))
        return replace(self, spec=spec, folds=[way.fold(fold) for fold in self.folds], way=way)


@dataclass(frozen=True)
class Output:
    """Values that the product computes: `what` they are, the `leak` that a change shows, float64
    `values`, and for each the index at which it is `known` (int64, of a shape that broadcasts).

    The values have a row for each index from the first one on; those of a scaler or a loss have the
    same rows for any points.
    """

    leak: str
    what: str
    values: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Part:
    """The points up to the index `last`, with the way's columns, as blocks."""

    setup: Setup
    points: Columns
    last: int

    @classmethod
    def of(cls, setup: Setup, points: Columns, last: int) -> Part:
        """Adds the way's columns."""
        more = {name: make(points, setup.spec) for name, make in setup.way.columns.items()}
        return cls(setup, {**points, **more}, last)

    @property
    def first(self) -> int:
        return int(self.points["index"][0])

    @property
    def index(self) -> np.ndarray:
        """All indexes, int64 (n,)."""
        return np.arange(self.first, self.last + 1)

    def blocks(self) -> Iterator[Columns]:
        """As the network's feeds get them."""
        return blocks.from_points([self.points], self.setup.spec)

    def price(self) -> np.ndarray:
        """On the grid, float64 (n,), USD, NaN in a hole."""
        return folding.prices(self.setup.spec, self.blocks(), first=self.first, last=self.last)[0]

    def empty(self, *shape: int) -> np.ndarray:
        """NaN for each index, float64 (n, *shape)."""
        return np.full((self.last - self.first + 1, *shape), np.nan)


def point_outputs(part: Part) -> Iterator[Output]:
    """The features and the targets, unscaled, and where each window begins."""
    spec, first, index = part.setup.spec, part.first, part.index
    unscaled = Scaler(dict.fromkeys(spec.features, Scale(0.0, 1.0)), Scale(0.0, 1.0))
    features, begins, targets = part.empty(len(spec.features)), part.empty(), part.empty()
    for columns in part.blocks():
        begin = int(columns["block"][0]) * spec.size
        own = begin + np.arange(spec.size)
        inside = (own >= first) & (own <= part.last)
        ends = windowing.windows_ending(spec, columns, first=first, last=part.last)
        windows = windowing.to_windows(spec, columns, unscaled, ends)
        features[own[inside] - first] = windows.values[spec.own][inside]
        begins[own[ends[0]] - first] = begin - spec.before + windows.starts
        some = windowing.complete_windows(spec, columns, last=part.last)
        windows = windowing.to_windows(spec, columns, unscaled, some)
        targets[own[some[0]] - first] = windows.target
    for place, name in enumerate(spec.features):
        yield Output("look-ahead feature", name, features[:, place], index)
    yield Output("look-ahead window", "the begin of the window", begins, index)
    yield Output("look-ahead target", "the target", targets, index + spec.horizon)


def fold_outputs(part: Part, fold: Fold) -> Iterator[Output]:
    """The scaler, and from the end of the fitted part on the baselines' forecasts: at this end, and
    at the origins."""
    setup, spec = part.setup, part.setup.spec
    where = f"in fold {fold.number}"
    scaler = setup.way.fit_scaler(spec, part.blocks(), fold)
    for name, scale in {**scaler.features, "target": scaler.target}.items():
        values = np.array([scale.shift, scale.scale])
        known = np.array(fold.train_until)
        yield Output("scaler on later points", f"the scale of {name} {where}", values, known)
    if part.last < fold.validate_until:
        return
    there = replace(fold, test_until=min(fold.test_until, part.last))
    windows = folding.origin_windows(spec, part.blocks(), there, scaler)
    ends = [some.target_timestamp // spec.step_ms - spec.horizon for some in windows]
    origins = np.concatenate([[fold.validate_until], *ends]) - part.first
    forecasts = setup.way.baseline_returns(
        setup.baselines,
        part.price(),
        fold,
        first=part.first,
        step_ms=spec.step_ms,
        origins=origins,
        steps=setup.steps,
    )
    for name, found in forecasts.items():
        values = part.empty(setup.steps)
        values[origins] = found
        what = f"the forecast of {name} {where}"
        yield Output("prediction from the future", what, values, part.index[:, None])


def series_outputs(part: Part) -> Iterator[Output]:
    """The variances, their targets and forecasts, the intervals, and the verdict's volatility."""
    setup, steps, index = part.setup, part.setup.steps, part.index
    step_ms, first_ms = setup.spec.step_ms, part.first * setup.spec.step_ms
    returns, row = folding.returns_of(part.price()), index[:, None]
    ewma = baselines.variance_ahead(returns)
    when: dict[str, Any] = {"first_ms": first_ms, "step_ms": step_ms}
    variances = {
        "the variance of `ridge`": ewma,
        "a feature of the volatility": volatility_features.features(returns, **when),
        "the variance of the steps": setup.way.step_variances(returns, horizon=steps, **when),
    }
    for name in VOLATILITIES:
        forecast = volatility.forecast_variance(name, returns, horizon=steps, **when)
        variances[f"the volatility forecast of {name}"] = forecast
    for what, values in variances.items():
        known = index if values.ndim == 1 else row
        yield Output("variance from the future", what, values, known)
    targets = volatility_features.future_variances(returns, horizon=steps)
    ahead = np.arange(1, steps + 1)
    yield Output("look-ahead target", "the target of the variance", targets, row + ahead)
    tercile = setup.way.terciles(returns).astype(np.float64)
    yield Output("threshold from the future", "the tercile of the volatility", tercile, index)
    some = np.unique([1, (1 + steps) // 2, steps])
    given = (returns, np.zeros((len(returns), len(some))), ewma[:, None] * some)
    for leak, what, rules in (
        ("quantile from the future", "the quantile of past errors", intervals.Rules(rate=0.0)),
        ("conformal state from the future", "the half-width", intervals.Rules()),
    ):
        found = setup.way.calibrate(*given, steps=some.tolist(), rules=rules)
        yield Output(leak, f"{what} of an interval", found.reshape(len(returns), -1), row)
    for horizon in sorted({1, steps}):
        known = skill_tests.known_volatility(returns, horizon=horizon)
        what = f"the verdict's volatility at step {horizon}"
        yield Output("volatility from the future", what, known, index - horizon)


def network_outputs(part: Part, fold: Fold) -> Iterator[Output]:
    """The validation loss and the forecasts of the fold's network, as the back-test fits it."""
    setup, spec = part.setup, part.setup.spec
    # The last origins have no outcome yet, and `run_fold` needs one.
    there = replace(fold, test_until=min(fold.test_until, part.last - setup.steps))
    with dataset.local_blocks(spec, part.blocks()) as stored:
        work = Work(stored, part.first, part.last, setup.training, (), setup.steps)
        frame, record = folding.run_fold(work, there)
    where, leak = f"of the network in fold {fold.number}", "network from the future"
    loss = np.array([record["best_validation_loss"]])
    yield Output(leak, f"the loss {where}", loss, np.array(fold.validate_until))
    end = there.test_until + 1 - part.first
    values = part.empty(setup.steps)[:end]
    origins = frame["origin_timestamp"].to_numpy()[:: setup.steps] // spec.step_ms - part.first
    values[origins] = frame[folding.NETWORK].to_numpy().reshape(-1, setup.steps)
    yield Output(leak, f"the forecast {where}", values, part.index[:end, None])


def until(points: Columns, cut: int) -> Columns:
    """The points up to the index `cut`."""
    return {name: values[points["index"] <= cut] for name, values in points.items()}


def with_other_future(points: Columns, *, cut: int, chance: np.random.Generator) -> Columns:
    """The same points up to the index `cut`; after it other prices and values at the same indexes.

    The later returns, marks and values come in a random order, each multiplied by a random number
    from 1.5 to 2.5, with noise, so that a price that stands still changes, too.
    """
    later = points["index"] > cut
    count = int(later.sum())
    order, factor = chance.permutation(count), chance.uniform(1.5, 2.5, count)

    def altered(values: np.ndarray, least: float) -> np.ndarray:
        spread = np.nanstd(values) if np.isfinite(values).any() else 0.0
        noise = max(0.1 * float(spread), least) * chance.standard_normal(count)
        return factor * values[order] + noise

    logs = np.log(points["price"].astype(np.float64))
    returns = np.diff(logs, prepend=logs[0])[later]
    # Without their mean, so that no price leaves the range of float32.
    moves = altered(returns - returns.mean() if count else returns, 1e-4)
    start = logs[~later][-1] if count < len(logs) else logs[0]
    found = {name: values.copy() for name, values in points.items()}
    found["price"][later] = np.exp(start + np.cumsum(moves))
    found["imputed"][later] = points["imputed"][later][order]
    for name, values in points.items():
        if name not in ("index", "price", "imputed"):
            found[name][later] = altered(values[later], 1e-3)
    return found
