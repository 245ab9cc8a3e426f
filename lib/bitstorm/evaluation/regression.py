"""Two penalised linear regressions: least squares, and variances by their gamma (QLIKE) loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A step is at most so long in the log of a fitted variance: a scoring step from far below the
# optimum would overshoot exponentially.
_LONGEST_STEP = 2.0
_MAX_STEPS, _ROUNDING = 1_000, 1e-12


@dataclass(frozen=True)
class Fit:
    """`intercept` float64 () or (k,), `slopes` float64 (p,) or (p, k), in the units of the columns
    of X. With `log_link` they give the log of the mean."""

    intercept: np.ndarray
    slopes: np.ndarray
    log_link: bool = False

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The means at X, float64 (n, p) → (n,) or (n, k); NaN in a row gives NaN."""
        # A product of BLAS rounds a row by its place in the table; here a row stands alone.
        linear = self.intercept + np.einsum("np,p...->n...", X, self.slopes)
        return np.exp(linear) if self.log_link else linear


def ridge(X: np.ndarray, y: np.ndarray, *, penalty: float) -> Fit:
    """Least squares: Σ (y - b₀ - Z b)² + penalty · |b|² (Hoerl and Kennard, 1970).

    X is float64 (n, p), y (n,) or (n, k); neither has a NaN. Z is X with each column standardised,
    so one penalty suits all columns; b₀ has no penalty.
    """
    centre, scale, Z = _standardised(X)
    mean = y.mean(axis=0)
    gram = Z.T @ Z + penalty * np.eye(X.shape[1])
    # Without a penalty a constant column makes it singular: the shortest slopes solve it.
    slopes = np.linalg.lstsq(gram, Z.T @ (y - mean), rcond=None)[0]
    return _in_units(mean, slopes, centre, scale)


def qlike_ridge(
    X: np.ndarray,
    Y: np.ndarray,
    *,
    penalty: float,
    start: Fit | None = None,
    tolerance: float = 1e-3,
) -> Fit:
    """For each column: Σ (y / m + log m) + penalty / 2 · |b|², where log m = b₀ + Z b.

    This is the gamma loss with log link; its minimum is also the minimum of QLIKE (Patton, 2011).
    X is float64 (n, p), Y (n, k), not negative, each column with a positive mean; no NaN. Z is as
    in `ridge`. `start` is a fit to similar data, for fewer steps. A column is done when a step
    changes no fitted log variance by more than `tolerance`.

    Fisher scoring: with the log link the expected information is Z'Z, the same for all columns and
    all steps, so one inverse serves all. The loss is convex, and a step that would raise the loss
    of a column is halved for this column, so the method converges.
    """
    n, k = Y.shape
    centre, scale, Z = _standardised(X)
    Z = np.column_stack([np.ones(n), Z])
    shrink = np.r_[0.0, np.full(X.shape[1], penalty)][:, None]
    inverse = np.linalg.inv(Z.T @ Z + np.diagflat(shrink))

    def state(b: np.ndarray, log_mean: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, ...]:
        ratio = Y * np.exp(-log_mean)
        loss = ratio.sum(axis=0) + log_mean.sum(axis=0) + (shrink * b**2).sum(axis=0) / 2
        return b, log_mean, ratio, loss

    b = np.zeros((Z.shape[1], k))
    b[0] = np.log(Y.mean(axis=0))
    if start is not None:
        b = np.vstack([start.intercept + centre @ start.slopes, start.slopes * scale[:, None]])
    found, left = b.copy(), np.arange(k)
    b, log_mean, ratio, loss = state(b, Z @ b, Y)
    for _ in range(_MAX_STEPS):
        # The sums of Z are n for the constant and 0 for the standardised columns.
        step = inverse @ (Z.T @ ratio - shrink * b - np.eye(len(b), 1) * n)
        change = Z @ step
        size = np.maximum(change.max(axis=0), -change.min(axis=0))
        share = np.minimum(1.0, _LONGEST_STEP / np.maximum(size, _ROUNDING))
        while True:
            then = state(b + share * step, log_mean + share * change, Y)
            worse = then[-1] > loss + _ROUNDING * np.abs(loss)
            if not worse.any():
                break
            share = np.where(worse, share / 2, share)
        found[:, left] = then[0]
        more = size > tolerance
        if not more.any():
            break
        left, Y, loss = left[more], Y[:, more], then[-1][more]
        b, log_mean, ratio = (values[:, more] for values in then[:-1])
    return _in_units(found[0], found[1:], centre, scale, log_link=True)


def _standardised(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of the columns, and the columns in these units; a constant one is 0."""
    centre = X.mean(axis=0)
    centred = X - centre
    scale = np.sqrt((centred**2).mean(axis=0))
    # The mean of a constant is rounded.
    constant = scale <= 1e-12 * np.abs(centre)
    scale = np.where(constant, 1.0, scale)
    return centre, scale, np.where(constant, 0.0, centred) / scale


def _in_units(
    mean: np.ndarray,
    slopes: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
    *,
    log_link: bool = False,
) -> Fit:
    slopes = (slopes.T / scale).T
    return Fit(np.asarray(mean - centre @ slopes), slopes, log_link)
