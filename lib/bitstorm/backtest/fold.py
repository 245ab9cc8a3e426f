"""One fold: fit on its past, forecast its test part. Runs in any process, with the same bits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.backtest.folds import Fold
from bitstorm.core.errors import BrokenOff, DataError, ModelError
from bitstorm.core.settings import Training
from bitstorm.core.time import DAY_MS
from bitstorm.evaluation import baselines
from bitstorm.evaluation.baselines import Baseline
from bitstorm.evaluation.baselines_extra import EXTRA_BASELINES
from bitstorm.model import backend, forecast, scaling, volatility_network, windowing
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.feed import make_feed, reason_of
from bitstorm.model.scaling import Scaler
from bitstorm.model.training import Progress, Task
from bitstorm.model.training_run import batch_size_and_rate
from bitstorm.model.windowing import Columns, Windows, WindowSpec

NETWORK = "network"
# The columns of a fold's frame that are no model's prices.
FACTS = ("origin_timestamp", "step", "origin_price", "actual", "variance")


@dataclass(frozen=True)
class Work:
    """What all folds share; it can be pickled. The series has the grid indexes `first` to `last`;
    forecasts are for the steps 1 to `steps`, with `volatility` also of the next day's variance.
    `in_process`: the folds run in the driver."""

    stored: StoredBlocks
    first: int
    last: int
    training: Training
    baselines: tuple[str, ...]
    steps: int
    volatility: bool = False
    in_process: bool = False


def day_of(step_ms: int) -> int:
    """The steps of a day, at least 1."""
    return max(1, DAY_MS // step_ms)


def default_baselines(step_ms: int) -> Mapping[str, Baseline]:
    """The baselines that need no extra, by name, for a grid with this step."""
    day = day_of(step_ms)
    return baselines.baselines(day=day, week=7 * day)


def known_baselines(step_ms: int) -> Mapping[str, Baseline]:
    """All baselines, those of the extras after the default ones."""
    return {**default_baselines(step_ms), **EXTRA_BASELINES}


def run_fold(work: Work, fold: Fold) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The forecasts of the test part, and the record of the fit.

    The frame has a row for each origin and step, in this order: `origin_timestamp` (int64, ms UTC),
    `step` (int32, from 1), and as float64 in USD `origin_price`, `actual` (NaN where the price is
    not observed or a hole lies before it) and one forecast a model. With `Work.volatility`, the
    column `variance` has the network's forecast at the origin of the variance of the next day, in
    squared log return, NaN where the past is too short for it. Raises DataError where a part has no
    window, and ModelError where the training fails.
    """
    began = time.monotonic()
    network, scaler, record = train_network(work, fold)
    spec, steps = work.stored.spec, work.steps
    windows = origin_windows(spec, work.stored.columns(), fold, scaler)
    times, _, found = forecast.predict_steps(
        network, windows, spec=spec, scaler=scaler, steps=steps
    )
    if not len(times):
        raise DataError(_too_few(fold, {**record["windows"], "test": 0}, work.training))
    price, observed = prices(spec, work.stored.columns(), first=work.first, last=work.last)
    origins = times // spec.step_ms - work.first
    log_returns = {NETWORK: found} | baseline_returns(
        work.baselines,
        price,
        fold,
        first=work.first,
        step_ms=spec.step_ms,
        origins=origins,
        steps=steps,
    )
    origin_price = price[origins, None]
    columns = {
        "origin_timestamp": np.repeat(times, steps),
        "step": np.tile(np.arange(1, steps + 1, dtype=np.int32), len(times)),
        "origin_price": np.repeat(origin_price, steps),
        "actual": _actual(price, observed, origins, steps).ravel(),
        **{name: (origin_price * np.exp(r)).ravel() for name, r in log_returns.items()},
    }
    if work.volatility:
        variance = _variance(work, fold, np.where(observed, price, np.nan))
        columns["variance"] = np.repeat(variance[origins + work.first - fold.train_from], steps)
    record["windows"]["test"] = len(times)
    return pd.DataFrame(columns), {**record, "seconds": round(time.monotonic() - began, 3)}


def train_network(
    work: Work, fold: Fold, progress: Callable[[Progress], None] = lambda _: None
) -> tuple[Any, Scaler, dict[str, Any]]:
    """The network with its best weights, its scaler, and the record of the fit. Errors as in
    `run_fold`; an error of `progress` ends the training and passes through."""
    stored, spec, settings = work.stored, work.stored.spec, work.training
    scaler = fit_scaler(spec, stored.columns(), fold)
    feeds = {
        part: make_feed(
            stored, scaler, after_ms=after * spec.step_ms, until_ms=until * spec.step_ms
        )
        for part, (after, until) in fitted_spans(spec, fold).items()
    }
    windows = {part: len(feed) for part, feed in feeds.items()}
    if 0 in windows.values():
        raise DataError(_too_few(fold, windows, settings))
    batch_size, learning_rate = batch_size_and_rate(settings)
    shape = backend.network_shape(
        settings, features=len(spec.features), learning_rate=learning_rate
    )
    shape["seed"] = settings.seed
    with tempfile.TemporaryDirectory(prefix="bitstorm-") as folder:
        task = Task(
            train=feeds["training"],
            validation=feeds["validation"],
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=batch_size,
            seed=settings.seed,
            folder=Path(folder),
            record={},
            progress=progress,
        )
        try:
            fitted, network = backend.fit_network(settings.backend, shape, task)
        except BrokenOff as error:
            # Its own words name a run to resume; a fold has none.
            raise ModelError(
                f"its training broke off ({reason_of(error.__cause__ or error)})"
            ) from error
    return network, scaler, {"windows": windows, "scaler": scaler.to_json(), **asdict(fitted)}


def fit_scaler(spec: WindowSpec, blocks: Iterable[Columns], fold: Fold) -> Scaler:
    """Fitted on the training part. Raises DataError as `scaling.fit`."""
    return scaling.fit(spec, _since(spec, blocks, fold.train_from), last=fold.train_until)


def fitted_spans(spec: WindowSpec, fold: Fold) -> dict[str, tuple[int, int]]:
    """The grid indexes (after, until] of the targets of the training and the validation part."""
    # The first window's first return needs the price before it.
    before_first = fold.train_from + spec.before + spec.horizon - 1
    return {
        "training": (before_first, fold.train_until),
        "validation": (fold.train_until, fold.validate_until),
    }


def _variance(work: Work, fold: Fold, price: np.ndarray) -> np.ndarray:
    """The variance of the next day at each point from `train_from` on, by a network fitted once, on
    the fitted part: its last target ends there. `price` has only the observed ones."""
    step_ms = work.stored.spec.step_ms
    past = slice(fold.train_from - work.first, fold.test_until - work.first + 1)
    returns = np.diff(np.log(price[past]), prepend=np.nan)
    options = volatility_network.Options(every=len(returns), seed=work.training.seed)
    try:
        return volatility_network.forecast_variance(
            returns,
            first_ms=fold.train_from * step_ms,
            start=fold.validate_until - fold.train_from,
            step_ms=step_ms,
            horizon=day_of(step_ms),
            options=options,
        )
    except ValueError:  # too few points for its training
        return np.full(len(returns), np.nan)


def _since(spec: WindowSpec, blocks: Iterable[Columns], first: int) -> Iterator[Columns]:
    """The blocks of a series that begins at this grid index."""
    for columns in blocks:
        begin = columns["block"].astype(np.int64)[:, None] * spec.size - spec.before
        early = begin + np.arange(spec.length) < first
        yield {**columns, "price": np.where(early, np.float32(np.nan), columns["price"])}


def origin_windows(
    spec: WindowSpec, blocks: Iterable[Columns], fold: Fold, scaler: Scaler
) -> Iterator[Windows]:
    """The complete windows that end at the fold's origins."""
    for columns in blocks:
        ends = windowing.windows_ending(spec, columns, first=fold.test_from, last=fold.test_until)
        if ends.any():
            yield windowing.to_windows(spec, columns, scaler, ends)


def prices(
    spec: WindowSpec, blocks: Iterable[Columns], *, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """The prices at the grid indexes `first` to `last`, float64 (n,), USD, NaN in a hole; and
    whether each is observed."""
    signed = np.full(last - first + 1, np.nan)
    for columns in blocks:
        index = columns["block"].astype(np.int64)[:, None] * spec.size + np.arange(spec.size)
        inside = (index >= first) & (index <= last)
        signed[index[inside] - first] = columns["price"][:, spec.own][inside]
    return np.abs(signed), signed > 0


def returns_of(price: np.ndarray) -> np.ndarray:
    """The log returns of one step, float64 (n,), NaN at the first price and at a hole."""
    return np.diff(np.log(price), prepend=np.nan)


def baseline_returns(
    names: Sequence[str],
    price: np.ndarray,
    fold: Fold,
    *,
    first: int,
    step_ms: int,
    origins: np.ndarray,
    steps: int,
) -> dict[str, np.ndarray]:
    """The baselines' forecasts by name, float64 (origins, steps): log returns of the steps 1 to
    `steps` after each origin. `origins` are places of `price`, which begins at the index `first`.
    """
    known = known_baselines(step_ms)
    # The baselines see the span of the fold, as the network does.
    begin = fold.train_from - first
    returns, fit_until = returns_of(price[begin:]), fold.validate_until - fold.train_from
    return {
        name: known[name](returns, fit_until=fit_until, origins=origins - begin, steps=steps)
        for name in names
    }


def _actual(price: np.ndarray, observed: np.ndarray, origins: np.ndarray, steps: int) -> np.ndarray:
    """The observed prices 1 to `steps` points after each origin with no hole before them, else NaN;
    float64 (origins, steps)."""
    later = origins[:, None] + np.arange(1, steps + 1)
    holes = np.cumsum(np.isnan(price))
    known = observed[later] & (holes[later] == holes[origins, None])
    return np.where(known, price[later], np.nan)


def _too_few(fold: Fold, windows: dict[str, int], settings: Training) -> str:
    return (
        f"found {', '.join(f'{n} {part}' for part, n in windows.items())} windows, expected some "
        f"in each part; a window needs {settings.look_back} consecutive points: collect more, or "
        "lower backtest.folds or training.look_back"
    )
