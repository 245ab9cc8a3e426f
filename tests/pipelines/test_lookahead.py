"""`check-lookahead`: the cuts that it draws, what it finds, and that it can find something."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from bitstorm.cli import bitstorm
from bitstorm.cli.render_models import lookahead_failure, lookahead_lines
from bitstorm.context import Context
from bitstorm.core.errors import DataError, SnapshotMissing
from bitstorm.core.time import Span
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.lookahead import compare_cuts, draw_cuts
from bitstorm.pipelines import lookahead as pipeline
from bitstorm.pipelines.lookahead import Looked, check_lookahead
from bitstorm.store.batch_writer import make_batch_writer
from bitstorm.store.petastorm_io import BitcoinSchema
from landed import HOUR, context_of

pytestmark = pytest.mark.slow

START = 1_609_459_200_000  # 2021-01-01T00:00:00Z
WINDOWS = "indicators.windows=[2, 3]"


def times_with_holes() -> np.ndarray:
    """Two observations an hour for ten days, some of them missing, and nothing for ten hours."""
    chance = np.random.default_rng(5)
    times = START + np.arange(480) * HOUR // 2 + 60_000 * chance.integers(0, 20, 480)
    kept = chance.random(480) < 0.8
    kept[200:220] = False
    return times[kept]


def workspace(root: Path, times: np.ndarray, prices: np.ndarray | None = None) -> Context:
    context = context_of(root, WINDOWS)
    if prices is None:
        prices = 100 * np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.01, len(times))))
    with make_batch_writer(context.workspace.prices, BitcoinSchema) as writer:
        writer.write(pd.DataFrame({"timestamp": times, "price": prices.astype(np.float32)}))
    return context


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return workspace(tmp_path_factory.mktemp("holed"), times_with_holes())


def test_only_planted_look_ahead_is_found_at_cuts_of_every_kind(spark_session, holed):
    result = check_lookahead(holed, cuts=3, seed=3, plant=True)
    assert result.passed and result.changed == () and result.caught == 3
    places = [cut.place for cut in result.cuts]
    assert sorted(places) == ["after a hole", "inside a bucket", "random"]
    assert [cut.time_ms for cut in result.cuts] == sorted(cut.time_ms for cut in result.cuts)
    assert "rsi_14" in result.columns and "imputed" in result.columns
    for cut in result.cuts:
        # Every label up to the cut, less those in the hole and the first one's bucket.
        hours = (cut.time_ms - START) // HOUR
        assert hours - 12 <= cut.altered.rows <= hours + 1
        assert cut.truncated.rows <= cut.altered.rows
        # At the last label the next price is not there yet; all before it stays.
        assert cut.truncated.changed == {"planted_next_price": 1}
    lines = lookahead_lines(result)
    assert "the planted look-ahead was caught at 3 of 3 cuts" in lines
    assert "every other value is the same to the last bit" in lines


def test_the_same_seed_draws_the_same_cuts(spark_session):
    frame = spark_session.createDataFrame(
        [(START + n * HOUR // 3,) for n in range(300)], "timestamp bigint"
    )
    slots = [Span(START, START + 100 * HOUR)]

    def drawn(seed):
        random = Random(seed)
        return draw_cuts(frame, slots=slots, step_ms=HOUR, max_gap=6, count=4, random=random)

    assert drawn(1) == drawn(1) != drawn(2)


def test_cuts_are_at_a_holes_end_in_a_bucket_and_in_the_series(spark_session):
    times = [START + n * HOUR for n in (0, 1, 2, 30, 31)] + [
        START + 31 * HOUR + 7,
        START + 32 * HOUR,
    ]
    frame = spark_session.createDataFrame([(t,) for t in times], "timestamp bigint")
    slots = [Span(START, START + 3 * HOUR), Span(START + 30 * HOUR, START + 33 * HOUR)]
    drawn = draw_cuts(frame, slots=slots, step_ms=HOUR, max_gap=6, count=6, random=Random(1))
    assert (START + 30 * HOUR, "after a hole") in drawn
    assert (START + 31 * HOUR + 7, "inside a bucket") in drawn
    assert len(drawn) == 6
    assert all(START <= time < START + 32 * HOUR for time, _ in drawn)


def test_a_regular_series_without_holes_has_random_cuts_only(spark_session):
    frame = spark_session.createDataFrame(
        [(START + n * HOUR,) for n in range(50)], "timestamp bigint"
    )
    drawn = draw_cuts(
        frame,
        slots=[Span(START, START + 50 * HOUR)],
        step_ms=HOUR,
        max_gap=6,
        count=3,
        random=Random(1),
    )
    assert [place for _, place in drawn] == ["random"] * 3


def test_output_that_waits_for_later_input_is_found(spark_session, holed):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ordered = Window.partitionBy(F.lit(0)).orderBy("timestamp")

    def waiting(prices, last_ms):
        grid = Grid(HOUR, 6)
        span = span_of(times[0], last_ms, grid=grid)
        points = from_prices(prices, grid=grid, windows=(2, 3), span=span)
        after = points.withColumn("after", F.lead("price").over(ordered))
        return after.where("after is not null").drop("after")

    times = [START + n * HOUR for n in range(40)]
    prices = spark_session.createDataFrame(
        [(t, 1.0 + n % 7) for n, t in enumerate(times)], "timestamp bigint, price float"
    )
    _, _, (cut,) = compare_cuts(
        prices,
        waiting,
        [(times[20], "random")],
        [(times[20], times[20])],
        last_ms=times[-1],
        console=holed.console,
        cache=holed.workspace.cache,
    )
    assert cut.truncated.changed == {"timestamp": 1}
    (change,) = cut.truncated.first
    assert (change.timestamp, change.whole, change.again) == (times[20], str(times[20]), None)


@pytest.fixture
def looking_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid with a column that is centred on the mean of the whole series."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    def centred(prices, **options):
        mean = F.avg("price").over(Window.partitionBy(F.lit(0)))
        points = from_prices(prices, **options).select("timestamp", "price", "imputed")
        return points.withColumn("centred", F.col("price") - mean)

    monkeypatch.setattr(pipeline, "from_prices", centred)


def command(context: Context, *arguments: str) -> tuple[int, str, str]:
    root = str(context.workspace.root)
    done = CliRunner().invoke(
        bitstorm,
        ["check-lookahead", "--workspace", root, "--set", WINDOWS, "--quiet", *arguments],
        standalone_mode=False,
    )
    assert done.exception is None, done.exception
    return done.return_value, done.stdout, done.stderr


def test_the_command_fails_with_the_changed_columns_and_times(spark_session, holed, looking_ahead):
    code, out, err = command(holed, "--cuts", "1", "--seed", "4")
    assert code == 1
    assert err.startswith("bitstorm: centred changed with the prices after 2021-01-")
    assert len(err.splitlines()) == 1 and "centred is " in out
    # A self-test that passes must not hide it.
    code, out, err = command(holed, "--cuts", "1", "--seed", "4", "--plant", "--json")
    assert code == 1 and err.startswith("bitstorm: centred changed")
    assert json.loads(out)["caught"] == 1


def test_a_planted_look_ahead_that_no_cut_shows_is_told():
    result = Looked(False, "1-a", 1, 9, ("price",), (), changed=(), caught=0)
    assert "the planted look-ahead was not caught" in lookahead_failure(result)


def test_too_few_prices_are_told(spark_session, tmp_path):
    with pytest.raises(SnapshotMissing, match="bitstorm ingest"):
        check_lookahead(context_of(tmp_path / "none"))
    context = workspace(tmp_path / "few", START + np.array([60_000, 120_000]))
    with pytest.raises(DataError, match="nothing to compare"):
        check_lookahead(context, cuts=2, seed=1)


def test_real_prices_change_at_no_cut_and_the_exit_code_is_0(spark_session, tmp_path, real_data):
    frame = pd.read_csv(real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz")
    # A bar's stamp is its start; its close is known an hour later.
    times = (frame["timestamp_s"].to_numpy() + 3600) * 1000
    context = workspace(tmp_path, times, frame["close"].to_numpy())
    code, out, err = command(context, "--cuts", "1", "--seed", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "seed 1: 13,165 rows of" in lines[0]
    assert lines[-1] == "every value is the same to the last bit"
