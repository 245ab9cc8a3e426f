"""`stats` on real data sets: what it prints, writes and reads, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from bitstorm.cli import bitstorm
from bitstorm.cli.render_models import stats_lines
from bitstorm.context import Context
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, iso
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.stats import stats
from bitstorm.store import snapshots
from landed import context_of, drop
from pipelines.priced import (
    SMALL,
    START,
    impatient,
    points_of,
    published,
    random_walk,
    small,
    with_prices,
)

pytestmark = pytest.mark.slow

# 200 hours: eight whole days and eight hours of the ninth.
HOURS = 200
WANTED: dict[str, Any] = {"period_ms": DAY_MS, "bars": 3, "lags": [1, 24]}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Where the workspace of `context` is made once, to be copied for each test."""
    return tmp_path_factory.mktemp("stats") / "workspace"


@pytest.fixture
def context(spark_session, tmp_path, template) -> Context:
    if not template.exists():
        with_prices(small(template), random_walk(4)[:HOURS])
    subprocess.run(["cp", "-a", template, tmp_path / "workspace"], check=True)
    return small(tmp_path / "workspace")


def stored_prices(context: Context) -> pd.DataFrame:
    found = snapshots.required(context.workspace.prices)
    return pd.read_parquet(found.folder).sort_values("timestamp", ignore_index=True)


def stored_points(context: Context) -> pd.DataFrame:
    found = snapshots.required(context.workspace.indicators)
    return pd.read_parquet(found.folder).sort_values("timestamp", ignore_index=True)


def bars_by_pandas(prices: pd.DataFrame) -> pd.DataFrame:
    exact = prices["price"].astype("float64")
    label = -(-prices["timestamp"] // DAY_MS) * DAY_MS
    bars = exact.groupby(label).agg(
        open="first", high="max", low="min", close="last", count="count"
    )
    bars["log_return"] = np.log(bars["close"]).diff()
    squares = (np.log(exact).groupby(label).diff() ** 2).groupby(label).sum(min_count=1)
    bars["realised_volatility"] = np.sqrt(squares)
    bars["complete"] = bars.index <= prices["timestamp"].max()
    return bars.reset_index()


def test_the_file_has_all_bars_and_the_result_the_newest(context, tmp_path):
    target = tmp_path / "bars.csv"
    target.write_text("an older file")
    result = stats(context, **WANTED, output=target)
    expected = bars_by_pandas(stored_prices(context))
    pd.testing.assert_frame_equal(pd.read_csv(target), expected, rtol=1e-12)
    pd.testing.assert_frame_equal(
        pd.DataFrame(result.bars), expected.tail(3).reset_index(drop=True), rtol=1e-12
    )
    assert result.rows == len(expected) == 10 and not expected["complete"].iloc[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bars.csv", "workspace"]
    points = stored_points(context)
    found, returns = result.statistics, points["log_return"]
    assert found["count"] == HOURS and found["sd"] == pytest.approx(returns.std())
    assert found["annualised_volatility"] == pytest.approx(returns.std() * np.sqrt(8_760))
    assert found["largest_drawdown"] == points["drawdown"].min()
    assert [one["of_return"] for one in found["autocorrelation"]] == pytest.approx(
        [returns.corr(returns.shift(lag)) for lag in (1, 24)]
    )


def test_the_command_prints_the_table_and_json_says_the_same(context, monkeypatch):
    monkeypatch.chdir(context.workspace.root.parent)
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    asked = ["stats", "--period", "1w", "--bars", "2", "--lags", "1, 300", *overrides]
    shown = CliRunner().invoke(bitstorm, asked, standalone_mode=False)
    assert (shown.return_value, shown.stderr) == (0, ""), shown.output
    told = json.loads(CliRunner().invoke(bitstorm, [*asked, "--json"]).stdout)
    assert (told["period"], told["frequency"], told["matching"]) == ("1w", "1h", True)
    # Mondays; the data begin on a Friday and end on a Saturday.
    mondays = [START + 3 * DAY_MS, START + 10 * DAY_MS]
    assert [bar["timestamp"] for bar in told["bars"]] == mondays
    assert sum(bar["count"] for bar in told["bars"]) == HOURS
    assert told["statistics"]["autocorrelation"][1] == {
        "lag": 300, "pairs": 0, "of_return": None, "of_absolute": None
    }  # fmt: skip
    for bar in told["bars"]:
        line = next(x for x in shown.stdout.splitlines() if iso(bar["timestamp"]) in x)
        for name in ("open", "high", "low", "close"):
            assert f" {bar[name]:,.2f} " in line
    assert "newest bars of 1w, USD" in shown.stdout
    assert f"{told['statistics']['annualised_volatility']:.1%}".replace("%", " %") in shown.stdout
    assert "not complete" in shown.stdout.splitlines()[-1]


def test_prices_with_many_digits_are_shown_whole(context):
    result = stats(context, **WANTED)
    dear = [{**bar, "high": bar["high"] * 1e6 + 0.12} for bar in result.bars]
    lines = stats_lines(type(result)(**{**vars(result), "bars": tuple(dear)}))
    assert all(any(f" {bar['high']:,.2f} " in line for line in lines) for bar in dear)


def test_a_snapshot_of_one_data_set_brings_its_counterpart(context):
    old_prices, old_points = (
        snapshots.required(root).id
        for root in (context.workspace.prices, context.workspace.indicators)
    )
    drop(context.workspace.landing, "more.csv", f"timestamp,price\n{START + HOURS * HOUR_MS},1\n")
    ingest(context)
    newest = stats(context, **WANTED)
    assert newest.indicators == old_points and newest.prices != old_prices
    assert not newest.matching and any("different prices" in line for line in stats_lines(newest))
    # Now prices have indicators of their own, so that the newest of both are others.
    indicators(context)
    assert stats(context, **WANTED).matching
    for name in (old_prices, old_points):
        found = stats(context_of(context.workspace.root, *SMALL, snapshot=name), **WANTED)
        assert (found.prices, found.indicators, found.matching) == (old_prices, old_points, True)
        assert found.bars[-1]["count"] == 7


def test_what_is_missing_is_said_before_spark_starts(context, tmp_path):
    quick = impatient(context)
    context.workspace.indicators.rename(tmp_path / "away")
    with pytest.raises(SnapshotMissing, match="run `bitstorm indicators` first"):
        stats(quick, **WANTED)
    name = snapshots.required(context.workspace.prices).id
    pinned = type(quick)(quick.workspace, quick.settings, quick.console, name)
    with pytest.raises(SnapshotMissing, match=f"bitstorm indicators --snapshot {name}"):
        stats(pinned, **WANTED)
    unknown = type(quick)(quick.workspace, quick.settings, quick.console, "x")
    with pytest.raises(SnapshotMissing, match="no snapshot 'x'"):
        stats(unknown, **WANTED)


def test_an_impossible_output_file_is_refused_before_spark(context, tmp_path):
    for target in (tmp_path / "a.txt", tmp_path / "none" / "a.csv"):
        with pytest.raises(UsageError):
            stats(impatient(context), **WANTED, output=target)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is not a file"):
        stats(impatient(context), **WANTED, output=tmp_path / "folder.csv")


def test_damaged_data_are_not_computed_on(context):
    for root in (context.workspace.indicators, context.workspace.prices):
        path = snapshots.required(root).files[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(SnapshotDamaged, match="has changed"):
            stats(impatient(context), **WANTED)


def test_one_point_prints_what_is_known_and_n_a_for_the_rest(context):
    # The newest indicators become a single point, of no prices that are here.
    published(context, points_of(np.array([42.0])))
    result = stats(context, **{**WANTED, "bars": 0})
    lines = "\n".join(stats_lines(result))
    assert "1 point of 1h" in lines and "sd n/a" in lines
    assert "newest bars" not in lines and result.bars == ()
    assert not result.matching
