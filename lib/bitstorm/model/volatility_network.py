"""The project's network as a forecast of the realised variance of the next steps.

Its windows hold the signed features of `evaluation/volatility_features`; its target is the log of
the realised variance of the next `horizon` steps, less the log that a ridge regression on the same
features gives: the network learns what a linear forecast misses. Without the ridge it would also
have to learn the level of the volatility, and a network does not extrapolate to a new level.
Arrays in, arrays out: no file, no Spark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitstorm.evaluation import volatility
from bitstorm.evaluation import volatility_features as history
from bitstorm.evaluation.regression import ridge
from bitstorm.evaluation.volatility_features import HOUR_MS
from bitstorm.model import network

# A standardised feature is at most so far from its mean: a network is not trusted far from what it
# has seen.
_FARTHEST = 5.0


@dataclass(frozen=True)
class Options:
    """How the network is built and trained. Windows have `look_back` steps. The newest share
    `validation` of the past ends a training early. A new training begins `every` steps, by default
    twelve weeks."""

    look_back: int = 24
    units: int = 50
    dropout: float = 0.2
    learning_rate: float = 0.001
    batch_size: int = 64
    epochs: int = 25
    patience: int = 4
    validation: float = 0.2
    every: int | None = None
    seed: int = 1


def forecast_variance(
    returns: np.ndarray,
    *,
    first_ms: int,
    start: int,
    step_ms: int = HOUR_MS,
    horizon: int = volatility.HORIZON,
    options: Options | None = None,
) -> np.ndarray:
    """The network's forecast at each index from `start` on of the variance of the next `horizon`
    steps, as in `evaluation/volatility.forecast_variance`; NaN before `start` and where a window
    is incomplete.

    Each training uses all that is past at its first origin: the training part, an embargo of
    look-back + horizon steps, the validation part, whose last target is known. All scales are those
    of the training part. Raises ValueError where the past is too short for both parts.
    """
    options = options or Options()
    X = history.features(returns, first_ms=first_ms, step_ms=step_ms)
    actual = history.future_variance(returns, horizon=horizon)
    complete = _complete(X, options.look_back)
    known = complete[np.isfinite(actual[complete])]
    found = np.full(len(returns), np.nan)
    every = options.every or max(3 * history.FOUR_WEEKS_MS // step_ms, 1)
    for origin in range(start, len(returns), every):
        past = known[known <= origin - horizon]
        parts = split(past, gap=options.look_back + horizon, share=options.validation)
        served = complete[(complete >= origin) & (complete < origin + every)]
        if len(served):
            found[served] = _trained(X, np.log(actual), parts, served, horizon, options)
    return found


def split(rows: np.ndarray, *, gap: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Ascending rows as a training part and a validation part, which is the newest `share`; the
    rows of the `gap` before it are in neither. Raises ValueError where one part is empty."""
    first = int(len(rows) * (1 - share))
    validation = rows[first:]
    training = rows[:first]
    if len(validation):
        training = training[training < validation[0] - gap]
    if not len(training) or not len(validation):
        raise ValueError(
            f"{len(rows)} windows have a known target; expected enough for a training part, a gap "
            f"of {gap} steps and a validation part: give a longer history or a later start"
        )
    return training, validation


def _complete(X: np.ndarray, look_back: int) -> np.ndarray:
    """The rows that end `look_back` rows without a NaN."""
    places = np.arange(len(X))
    last_gap = np.maximum.accumulate(np.where(np.isfinite(X).all(axis=1), -1, places))
    return np.flatnonzero(places - last_gap >= look_back)


def _windows(Z: np.ndarray, rows: np.ndarray, look_back: int) -> np.ndarray:
    """Float32 (n, look_back, k): the windows that end at the rows."""
    views = np.lib.stride_tricks.sliding_window_view(Z, look_back, axis=0)
    return np.ascontiguousarray(views[rows - look_back + 1].transpose(0, 2, 1))


def _trained(
    X: np.ndarray,
    target: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
    served: np.ndarray,
    horizon: int,
    options: Options,
) -> np.ndarray:
    """The variances at the rows `served` by a network trained on the parts; `target` are log
    variances. Ridge, scales and network are fitted on the training part."""
    import keras

    # Targets of neighbours overlap: four in a horizon say nearly as much as all.
    stride = max(horizon // 4, 1)
    training, validation = (part[::stride] for part in parts)
    line = ridge(X[training], target[training], penalty=history.penalty(horizon) / stride)
    missed = target - line.predict(X)
    centre, scale = X[training].mean(axis=0), X[training].std(axis=0)
    Z = (X - centre) / np.where(scale > 0, scale, 1.0)
    Z = np.clip(Z, -_FARTHEST, _FARTHEST).astype(np.float32)
    mean, deviation = missed[training].mean(), missed[training].std()
    net = network.seeded(
        seed=options.seed,
        look_back=options.look_back,
        features=X.shape[1],
        units=options.units,
        dropout=options.dropout,
        learning_rate=options.learning_rate,
    )

    def examples(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _windows(Z, rows, options.look_back), (missed[rows] - mean) / deviation

    def log_variance(rows: np.ndarray) -> np.ndarray:
        scaled = net.predict(_windows(Z, rows, options.look_back), batch_size=1_024, verbose=0)
        return line.predict(X[rows]) + mean + deviation * scaled[:, 0].astype(np.float64)

    early = keras.callbacks.EarlyStopping(patience=options.patience, restore_best_weights=True)
    net.fit(
        *examples(training),
        validation_data=examples(validation),
        epochs=options.epochs,
        batch_size=options.batch_size,
        callbacks=[early],
        verbose=0,
    )
    past = np.concatenate([training, validation])
    fitted = log_variance(past)
    # From the mean of the log to the log of the mean (Duan, 1983).
    smearing = np.mean(np.exp(target[past] - fitted))
    forecast = history.within_range(np.exp(log_variance(served)), np.exp(fitted))
    return smearing * forecast
