"""The two regressions against scikit-learn and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.evaluation.regression import qlike_ridge, ridge


def table(n: int = 400, p: int = 4, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(3.0, np.array([0.01, 1.0, 20.0, 5.0])[:p], (n, p))
    slopes = np.array([20.0, 0.5, -0.02, 0.05])[:p]
    return X, (X - 3.0) @ slopes + random.standard_t(4, n)


def test_ridge_equals_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = table()
    centre, scale = X.mean(axis=0), X.std(axis=0)
    theirs = linear_model.Ridge(alpha=30.0, solver="cholesky")
    theirs.fit((X - centre) / scale, y)
    ours = ridge(X, y, penalty=30.0)
    np.testing.assert_allclose(ours.slopes * scale, theirs.coef_, rtol=1e-9)
    expected = theirs.predict((X - centre) / scale)
    np.testing.assert_allclose(ours.predict(X), expected, rtol=1e-9)


def test_ridge_of_two_columns_is_that_of_each():
    X, y = table()
    both = ridge(X, np.column_stack([y, y**2]), penalty=5.0)
    for k, column in enumerate((y, y**2)):
        one = ridge(X, column, penalty=5.0)
        np.testing.assert_allclose(both.predict(X)[:, k], one.predict(X), rtol=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_constant_column_changes_nothing(penalty):
    X, y = table()
    more = np.column_stack([X, np.full(len(X), 0.1)])
    np.testing.assert_allclose(
        ridge(more, y, penalty=penalty).predict(more), ridge(X, y, penalty=penalty).predict(X)
    )
    Y = np.exp(y)[:, None]
    ours = qlike_ridge(more, Y, penalty=1.0, tolerance=1e-9).predict(more)
    np.testing.assert_allclose(ours, qlike_ridge(X, Y, penalty=1.0, tolerance=1e-9).predict(X))


def test_qlike_ridge_equals_the_gamma_glm_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    X, f = table()
    random = np.random.default_rng(3)
    Y = np.exp(f / 4)[:, None] * random.gamma([0.3, 2.0], 1.0, (len(X), 2))
    ours = qlike_ridge(X, Y, penalty=1e-9, tolerance=1e-10).predict(X)
    scaled = api.add_constant((X - X.mean(axis=0)) / X.std(axis=0))
    family = api.families.Gamma(api.families.links.Log())
    for k in range(2):
        theirs = api.GLM(Y[:, k], scaled, family=family).fit(tol=1e-14, maxiter=500)
        np.testing.assert_allclose(ours[:, k], theirs.fittedvalues, rtol=1e-7)


@pytest.mark.parametrize("penalty", [1.0, 300.0])
def test_qlike_ridge_is_where_the_gradient_is_zero(penalty):
    # Far outliers and zeros, from a cold start and from a fit to other data.
    X, _ = table()
    random = np.random.default_rng(4)
    Y = 1e-6 * random.standard_t(4, (len(X), 3)) ** 2
    Y[::7] = 0.0
    other = qlike_ridge(X[:200], Y[:200] * 100, penalty=penalty)
    for start in (None, other):
        fit = qlike_ridge(X, Y, penalty=penalty, start=start, tolerance=1e-10)
        scale = X.std(axis=0)
        ratio = Y / fit.predict(X)
        np.testing.assert_allclose(ratio.mean(axis=0), 1.0, rtol=1e-8)
        gradient = ((X - X.mean(axis=0)) / scale).T @ (ratio - 1)
        expected = penalty * fit.slopes * scale[:, None]
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


def test_an_incomplete_row_has_no_mean():
    X, y = table()
    fit = ridge(X, y, penalty=1.0)
    X[3, 1] = np.nan
    assert np.flatnonzero(np.isnan(fit.predict(X))).tolist() == [3]
