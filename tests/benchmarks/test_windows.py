"""The ways that the benchmark of windows compares compute the same."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from benchmarks.__main__ import main
from benchmarks.harness import interleaved
from benchmarks.process import Capped, Failed, served
from benchmarks.windows import WIDTHS, slope, write_walk
from click.testing import CliRunner

from benchmarks import our_indicators, peers, plain_spark
from bitstorm.core.workspace import file_url

ROWS = 10_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_walk(tmp_path_factory.mktemp("walk") / "walk", ROWS)


@pytest.fixture(scope="module")
def expected(files: list[Path]) -> pd.DataFrame:
    """Every window on its own, in numbers longer than a double."""
    points = pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)
    price = points["price"].to_numpy().astype(np.longdouble)
    change = np.diff(price) / price[:-1]
    for width in WIDTHS:
        for name, values, spread in (("ma", price, False), ("volatility", change, True)):
            frames = np.lib.stride_tricks.sliding_window_view(values, width)
            found = frames.std(axis=1, ddof=1) if spread else frames.mean(axis=1)
            missing = np.full(ROWS - len(found), np.nan)
            points[f"{name}_{width}"] = np.concatenate([missing, found.astype(float)])
    return points


def check(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    found = found.sort_values("timestamp", ignore_index=True)
    assert sorted(found.columns) == sorted(expected.columns)
    for name in expected.columns:
        bound = 1e-9 if name.startswith("volatility") else 1e-12
        np.testing.assert_allclose(found[name], expected[name], rtol=bound, err_msg=name)


@pytest.mark.parametrize("name", list(peers.WAYS))
def test_the_peers_compute_what_each_window_gives_on_its_own(files, expected, name):
    if peers.missing(name):
        pytest.skip(f"{name} is {peers.HOW_TO_INSTALL}")
    found = peers.WAYS[name](files, WIDTHS)
    convert = {"duckdb": "df", "polars": "to_pandas"}.get(name)
    check(getattr(found, convert)() if convert else found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("module", [our_indicators, plain_spark])
def test_the_ways_in_spark_compute_each_window(spark_session, files, expected, module):
    points = spark_session.read.parquet(*map(file_url, files))
    check(module.windows(points, widths=WIDTHS).toPandas(), expected)


def test_the_walk_is_minutes_without_holes_in_several_files(files):
    tables = [pq.read_table(file) for file in files]
    assert len(tables) == 8
    assert tables[0].schema.names == ["timestamp", "price"]
    assert [str(kind) for kind in tables[0].schema.types] == ["int64", "float"]
    times = np.concatenate([table["timestamp"] for table in tables])
    assert len(times) == ROWS and set(np.diff(times)) == {60_000}


def test_the_slope_is_the_power_that_time_grows_with():
    assert slope({100: 3.0, 1000: 30.0}) == pytest.approx(1)
    assert slope({1: 1.0, 10: 100.0, 100: 10_000.0}) == pytest.approx(2)


def test_a_slow_way_runs_less_and_its_first_run_is_apart():
    ran: list[tuple[str, int]] = []
    cold: dict[str, float] = {}

    def way(name):
        def run(number):
            ran.append((name, number))
            return 10.0 + number

        return run

    ways = {"quick": way("quick"), "slow": way("slow")}
    seconds = interleaved(ways, runs=2, at_most={"slow": 1}, cold=cold)
    assert ran == [("quick", 0), ("slow", 0), ("quick", 1), ("slow", 1), ("quick", 2)]
    assert seconds == {"quick": [11.0, 12.0], "slow": [11.0]}
    assert cold == {"quick": 10.0, "slow": 10.0}


SERVING = """
import sys, time
from benchmarks.process import serve

def run(request):
    if request["job"] == "fail":
        raise ValueError("no such thing")
    if request["job"] == "end":
        sys.exit(3)
    time.sleep(request["seconds"])

serve(run)
"""


def test_a_process_answers_with_seconds_and_says_how_it_failed(tmp_path, monkeypatch):
    (tmp_path / "serving.py").write_text(SERVING)
    root = Path(str(importlib.import_module("benchmarks").__file__)).parents[1]
    library = Path(str(importlib.import_module("bitstorm").__file__)).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}:{library}")
    with served("serving") as program:
        assert 0.1 < program.seconds(job="sleep", seconds=0.1) < 5
        with pytest.raises(Failed, match="ValueError: no such thing"):
            program.seconds(job="fail")
        with pytest.raises(Failed, match="ended with 3"):
            program.seconds(job="end")
    with served("serving") as program, pytest.raises(Capped, match=r"not done after 0\.2 s"):
        program.seconds(job="sleep", seconds=60, limit=0.2)
    assert program.process.returncode is not None


def test_a_benchmark_refuses_an_option_that_it_does_not_have():
    done = CliRunner().invoke(main, ["ingest", "--scale"])
    assert done.exit_code == 2 and "ingest has no --scale" in done.output
