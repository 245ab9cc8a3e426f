"""The log over the life of a workspace: forecasts, restarts, outcomes; without Spark."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bitstorm.backtest.outlook import Choice, Outlook
from bitstorm.cli.common import plain
from bitstorm.cli.render_data import status_lines
from bitstorm.cli.render_score import score_lines
from bitstorm.context import Context
from bitstorm.core.errors import SnapshotMissing
from bitstorm.core.schema import LEVELS
from bitstorm.core.sidecar import Origin
from bitstorm.pipelines import history
from bitstorm.pipelines.forecast_log import log_forecast
from bitstorm.pipelines.forecast_score import score
from bitstorm.pipelines.status import status
from bitstorm.store import petastorm_io, snapshots
from landed import HOUR
from pipelines.priced import START, impatient, points_of, published, random_walk, small
from report.drawn import line, times
from s3_server import BUCKET, running

pytestmark = pytest.mark.slow

PRICES = random_walk(5)


def at(context: Context, hour: int) -> None:
    """The workspace as it is when this hour's price is the newest."""
    published(context, points_of(PRICES[: hour + 1]))


def outlook_of(hour: int, returns: np.ndarray, width: np.ndarray, *, run: str) -> Outlook:
    """Forecasts from this hour's point, with half-widths (steps, 4) of the levels of the log."""
    price = float(np.float32(PRICES[hour]))
    forecast, origin = price * np.exp(returns), START + hour * HOUR
    times = origin + HOUR * np.arange(1, len(returns) + 1)
    lower, upper = (forecast[:, None] * np.exp(sign * width) for sign in (-1, 1))
    levels = tuple(level / 100 for level in LEVELS)
    return Outlook(Choice(run, "made"), origin, price, times, forecast, levels, lower, upper)


def forecast(context: Context, hour: int, *, run: str = "run-1", steps: int = 3) -> None:
    """Log a forecast from this hour's point: up by 0.1 % a step; step 1 has an 80 % interval."""
    width = np.full((steps, len(LEVELS)), np.nan)
    width[0, LEVELS.index(80)] = 0.012
    returns = 0.001 * np.arange(1, steps + 1)
    found = snapshots.required(context.workspace.indicators)
    log_forecast(context, outlook_of(hour, returns, width, run=run), found)


def logged(context: Context):
    return petastorm_io.read_frame(snapshots.required(context.workspace.forecasts))


def test_forecasts_are_kept_and_scored_when_outcomes_come(tmp_path):
    with pytest.raises(SnapshotMissing, match=r"no forecasts data set yet .* `bitstorm forecast`"):
        score(impatient(small(tmp_path)))
    assert status(impatient(small(tmp_path))).forecasts is None
    results = []
    for hour in range(40, 76):
        # A process of its own: nothing is kept but the files.
        context = impatient(small(tmp_path))
        at(context, hour)
        forecast(context, hour)
        forecast(context, hour)  # once more changes nothing
        if hour in (74, 75):
            results.append(score(context))
    assert logged(context)["step"].value_counts().to_dict() == {1: 36, 2: 36, 3: 36}
    before, after = (found.all_runs for found in results)
    assert (after.logged, after.scored, after.waiting, after.unobserved) == (108, 102, 6, 0)
    # Step 1 has 35 outcomes; the newest one adds to the evidence and changes nothing before.
    assert (before.grades.count, after.grades.count) == (34, 35)
    outcomes = np.diff(np.log(PRICES.astype(np.float32).astype(np.float64)))[40:75]
    (coverage,) = after.coverage
    share = np.mean(np.abs(outcomes - 0.001) <= 0.012)
    assert (coverage.level, coverage.scored) == (80, 35)
    assert coverage.share == pytest.approx(share)
    rmse = math.sqrt(np.mean((outcomes - 0.001) ** 2))
    assert after.steps[0].rmse == pytest.approx(rmse, rel=1e-9)
    assert score(impatient(small(tmp_path))) == results[1]

    # The newest forecast with an outcome, from hour 74: one of its three steps came.
    (fan,) = results[1].plot(theme="dark").axes
    seen = PRICES.astype(np.float32).astype(np.float64)
    origin = np.float32(seen[74])
    np.testing.assert_array_equal(line(fan, "what came"), [origin, seen[75], np.nan, np.nan])
    np.testing.assert_array_equal(line(fan, "price"), seen[75 - 72 : 75])
    assert times(fan, "what came").tolist() == [START + n * HOUR for n in range(74, 78)]

    shown = status(impatient(small(tmp_path)))
    assert shown.forecasts is not None
    assert shown.forecasts["coverage"] == {80: coverage.share}
    assert after.grades.information is not None
    assert shown.forecasts["e_values"]["information"] == math.exp(after.grades.information.log_e)
    text = "\n".join(status_lines(shown, tmp_path))
    assert "108 steps logged, 102 scored" in text and after.grades.headline[:30] in text
    assert json.loads(json.dumps(plain(results[1])))["all_runs"]["grades"]["count"] == 35
    assert "run run-1" in score_lines(results[1])

    assert [c.data_set for c in history.history(context)].count("forecasts") == 36
    assert history.verify(context)["forecasts"].snapshots == 36
    history.collect_garbage(context, keep=1, hours=0)
    assert len(logged(context)) == 108


def test_a_log_in_a_bucket_is_scored_and_drawn(tmp_path):
    with running():
        local = small(tmp_path)
        folders = local.workspace.with_store(f"s3://{BUCKET}/bitstorm")
        context = impatient(Context(folders, local.settings, local.console))
        at(context, 40)
        forecast(context, 40)
        at(context, 42)
        found = score(context)
        assert (found.all_runs.scored, found.all_runs.waiting) == (2, 1)
        (fan,) = found.plot().axes
        came = PRICES[40:43].astype(np.float32).astype(np.float64)
        np.testing.assert_array_equal(line(fan, "what came"), [*came, np.nan])


def test_a_forecast_whose_outcome_is_known_is_not_logged(tmp_path, capsys):
    context = small(tmp_path)
    at(context, 50)
    forecast(context, 48)
    assert logged(context)["step"].tolist() == [3]
    assert "the times of 2 of 3 steps have passed" in capsys.readouterr().err
    row = logged(context).iloc[0]
    assert (row["timestamp"], row["origin"], row["known_until"]) == (
        START + 51 * HOUR, START + 48 * HOUR, START + 50 * HOUR,
    )  # fmt: skip
    forecast(context, 40)
    assert len(logged(context)) == 1


def test_live_prices_are_sealed_by_the_clock(tmp_path, capsys):
    context = small(tmp_path)
    at(context, 50)
    context.workspace.bind(Origin("coingecko", "bitcoin", "usd"))
    forecast(context, 50)
    assert "the times of 3 of 3 steps have passed" in capsys.readouterr().err
    assert snapshots.current(context.workspace.forecasts) is None


def test_every_step_is_logged_with_its_intervals(tmp_path):
    context = small(tmp_path)
    at(context, 50)
    returns, width = np.array([0.0, 0.01]), np.array([[0.01, 0.02, 0.03, 0.04]] * 2)
    found = snapshots.required(context.workspace.indicators)
    log_forecast(context, outlook_of(50, returns, width, run="persistence"), found)
    rows, price = logged(context), float(np.float32(PRICES[50]))
    assert rows["run"].tolist() == ["persistence"] * 2
    assert rows["forecast"].tolist() == pytest.approx((price * np.exp(returns)).tolist())
    for level, half in zip(LEVELS, width[0], strict=True):
        ends = rows[[f"lower_{level}", f"upper_{level}"]].to_numpy()
        expected = price * np.exp(returns[:, None] + [-half, half])
        np.testing.assert_allclose(ends, expected, rtol=1e-12)


def test_a_forecast_without_a_window_is_not_logged(tmp_path):
    context = small(tmp_path)
    at(context, 50)
    found = snapshots.required(context.workspace.indicators)
    nothing = outlook_of(50, np.full(2, np.nan), np.full((2, len(LEVELS)), np.nan), run="r")
    log_forecast(context, nothing, found)
    assert snapshots.current(context.workspace.forecasts) is None
