"""`indicators`, built upon the snapshot before: what is computed, what is linked, and that it comes
to what the whole series comes to."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.cli.render_models import computed_lines
from bitstorm.context import Context
from bitstorm.core.schema import PRICES, indicator_table
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.update import Plan, plan_update
from bitstorm.pipelines.indicators import Computed, indicators
from bitstorm.store import maintenance, snapshots
from bitstorm.store import manifest as manifests
from bitstorm.store.petastorm_io import BitcoinSchema
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal import arrow_schema
from indicators.compared import assert_equal
from landed import HOUR, context_of
from pipelines.priced import impatient

pytestmark = pytest.mark.slow

START = 1_546_300_800_000  # 2019-01-01T00:00:00Z
WINDOWS = [2, 24, 168]
DAY = 24


def put(context: Context, observations: pd.DataFrame) -> None:
    """A snapshot of `prices` with these observations and no others, without Spark."""
    root, columns = context.workspace.prices, arrow_schema(PRICES)
    parent = snapshots.current(root)
    before = set() if parent is None else set(parent.manifest.months)

    def write(draft: Draft) -> Change:
        months = pd.to_datetime(observations["timestamp"], unit="ms").dt.strftime("%Y-%m")
        for month, rows in observations.groupby(months):
            target = draft.folder / f"month={month}"
            target.mkdir(parents=True)
            whole = pa.Table.from_pandas(
                rows.reindex(columns=columns.names), schema=columns, preserve_index=False
            )
            pq.write_table(whole, target / "part-0.parquet")
        return Change(frozenset(before | set(months)), may_lose_keys=True)

    publish(root, table=PRICES, schema=BitcoinSchema, parent=parent, operation="test", write=write)


def files(context: Context) -> dict[str, tuple[int, str]]:
    """Inode and SHA-256 of each month's file."""
    found = snapshots.required(context.workspace.indicators)
    listed = zip(found.manifest.files, found.files, strict=True)
    return {file.month: (path.stat().st_ino, file.sha256) for file, path in listed}


def points(context: Context) -> pd.DataFrame:
    found = snapshots.required(context.workspace.indicators)
    tables = [pq.read_table(path, partitioning=None) for path in found.files]
    return pa.concat_tables(tables).to_pandas().sort_values("timestamp", ignore_index=True)


def history(days: int) -> pd.DataFrame:
    """Hours with everything that can lie over a seam; each update ends where the text says."""
    count = days * DAY
    chance = np.random.default_rng(33)
    price = 9_000 * np.exp(np.cumsum(chance.normal(0, 0.008, count)))
    price[1_000] *= 3  # the maximum of all but the end
    price[-8 * DAY :] *= 8
    hours = np.arange(count)
    return pd.DataFrame({"timestamp": START + hours * HOUR, "price": price.astype("float32")})


@pytest.fixture(scope="module")
def observations() -> pd.DataFrame:
    rows = history(520)
    # Nothing moves over the seam of day 476.
    rows.loc[475 * DAY : 478 * DAY, "price"] = rows["price"].iloc[475 * DAY]
    hour = (rows["timestamp"] - START) // HOUR
    gone = [
        *range(470 * DAY - 3, 470 * DAY + 2),  # filled, over the end of day 470
        *range(472 * DAY - 2, 472 * DAY + 30),  # a cut, over the end of day 472
        *range(3_000, 3_004),
    ]
    rows = rows[~hour.isin(gone)].reset_index(drop=True)
    # Between labels: the newest bucket is then unfinished.
    odd = np.random.default_rng(3).random(len(rows)) < 0.3
    odd |= rows["timestamp"] == START + (486 * DAY + 1) * HOUR
    rows.loc[odd, "timestamp"] -= HOUR // 4
    return rows


def until(observations: pd.DataFrame, day: float) -> pd.DataFrame:
    return observations[observations["timestamp"] <= START + day * DAY * HOUR]


def whole(spark, context: Context, observations: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Everything, computed from the first price on."""
    observations.to_parquet(path, index=False)
    frame = spark.read.parquet(str(path))
    grid = Grid(HOUR, context.settings.grid.max_gap)
    span = span_of(observations["timestamp"].min(), observations["timestamp"].max(), grid=grid)
    points = from_prices(frame, grid=grid, windows=WINDOWS, span=span)
    return points.orderBy("timestamp").toPandas()


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert (found["timestamp"].to_numpy() == expected["timestamp"].to_numpy()).all()
    assert (found["imputed"].to_numpy() == expected["imputed"].to_numpy()).all()
    assert_equal(found, expected.drop(columns="month"), tolerance=1e-12)


def test_updates_come_to_what_the_whole_series_comes_to(spark_session, tmp_path, observations):
    context = context_of(tmp_path, f"indicators.windows={WINDOWS}")
    expected = whole(spark_session, context, observations, tmp_path / "all.parquet")
    put(context, until(observations, 468))
    first = indicators(context)
    assert (first.months, first.linked) == (16, 0)
    # An ordinary day; the ends of a hole that is filled and of one that cuts; where nothing moves;
    # a new month; a bucket without a point; weeks, with a new maximum.
    computed = {470: 1, 472: 1, 474: 1, 476: 1, 486: 2, 486.035: 0, 520: 2}
    for day, months in computed.items():
        before, linked = points(context), files(context)
        seen = until(observations, day)
        put(context, seen)
        result = indicators(context)
        found = points(context)
        complete = expected["timestamp"] <= seen["timestamp"].max()
        shown = expected[complete].reset_index(drop=True)
        # A hole at the end has no points before there is an observation after it.
        assert_same(found, shown[shown["timestamp"] <= found["timestamp"].max()])
        assert len(found) == result.rows >= len(before)
        assert (shown["imputed"] | (shown["timestamp"] <= found["timestamp"].max())).all()
        now = files(context)
        kept = {month for month in linked if now[month] == linked[month]}
        assert len(kept) == result.linked >= len(linked) - 1
        assert len(now) == result.linked + result.months
        assert (result.months, result.idle) == (months, False)
    assert indicators(impatient(context)).idle
    assert computed_lines(result)[0].endswith("published: 2 months computed, 16 linked")


def test_a_change_of_old_prices_reaches_all_that_comes_after_it(
    spark_session, tmp_path, observations
):
    context = context_of(tmp_path, f"indicators.windows={WINDOWS}")
    put(context, until(observations, 440))
    indicators(context)
    original = points(context)
    # A late price in July 2019, higher than any so far.
    late = pd.DataFrame({"timestamp": [START + 200 * DAY * HOUR + 7], "price": [99_000.0]})
    mended = pd.concat([until(observations, 440), late.astype({"price": "float32"})])
    mended = mended.sort_values("timestamp", ignore_index=True)
    put(context, mended)
    result = indicators(context)
    assert (result.months, result.linked) == (9, 6)
    expected = whole(spark_session, context, mended, tmp_path / "mended.parquet")
    assert_same(points(context), expected)
    # It is taken back, and with it what came after day 430.
    put(context, until(observations, 430))
    result = indicators(context)
    shorter = original[original["timestamp"] <= START + 430 * DAY * HOUR]
    assert_equal(points(context), shorter.drop(columns=["timestamp"]), tolerance=1e-12)
    assert result.linked == 6
    # Without the last hours there is nothing to compute, and the last month is cut short.
    put(context, until(observations, 429))
    result = indicators(context)
    assert (result.months, result.linked) == (1, 14)
    assert_equal(points(context), shorter[: result.rows].drop(columns=["timestamp"]), 1e-12)
    assert result.last_ms == until(observations, 429)["timestamp"].max() // HOUR * HOUR


def test_what_cannot_be_built_upon_is_computed_anew(spark_session, tmp_path, observations):
    def again(*overrides: str, rows: pd.DataFrame = observations[:1_500]) -> Computed:
        settings = (f"indicators.windows={[2, 3]}", *overrides)
        context = context_of(tmp_path, *settings)
        put(context, rows)
        return indicators(context)

    assert again().linked == 0
    # The same prices in another snapshot: every month is linked, and Spark is not asked.
    context = context_of(tmp_path, "indicators.windows=[2, 3]")
    put(context, observations[:1_500])
    same = indicators(impatient(context))
    assert (same.months, same.linked, same.idle) == (0, 3, False)
    parent = snapshots.required(context.workspace.indicators)
    prices = snapshots.required(context.workspace.prices)
    recipe = parent.manifest.details
    assert len(plan_update(context.workspace, parent, prices, recipe).linked) == 3
    other_columns = {**recipe, "schema": manifests.schema_hash(indicator_table([2, 3, 4]))}
    assert plan_update(context.workspace, parent, prices, other_columns) == Plan()
    assert again("grid.max_gap=7").linked == 0
    # Without the manifest of the prices that it was made from, nobody knows what has changed.
    put(context, observations[:1_520])
    maintenance.collect_garbage(
        context.workspace.prices, keep=1, younger_than_s=0, now_s=time.time()
    )
    assert again("grid.max_gap=7", rows=observations[:1_530]).linked == 0
    # A first price before all others moves everything.
    assert again("grid.max_gap=7", rows=observations[1:1_530]).linked == 0


def test_a_damaged_month_is_computed_anew_and_reported(
    spark_session, tmp_path, observations, capsys
):
    context = context_of(tmp_path, "indicators.windows=[2, 3]")
    put(context, observations[:1_500])
    indicators(context)
    good = points(context)
    newest = snapshots.required(context.workspace.indicators).files[-1]
    newest.chmod(0o600)
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    put(context, observations[:1_530])
    result = indicators(context)
    assert (result.months, result.linked) == (3, 0)
    assert newest.name in capsys.readouterr().err
    found = points(context)
    assert_equal(found[: len(good)], good.drop(columns=["timestamp"]), tolerance=1e-12)
    assert result.rows > len(good)
    assert not snapshots.damaged_files(snapshots.required(context.workspace.indicators))
