"""The command `backtest` on real snapshots: what it writes, and that it loses and leaks nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prepared
from bitstorm.backtest import files, judgement
from bitstorm.backtest.plan import make_plan
from bitstorm.backtest.tasks import run_folds
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError, StoreError, UsageError
from bitstorm.model.series import read_series
from bitstorm.model.training_data import write_blocks
from bitstorm.pipelines.backtest import backtest
from bitstorm.pipelines.report_judged import read_backtest
from bitstorm.report.summary import write_metrics
from bitstorm.store import snapshots
from bitstorm.store.stage_log import StageLog
from landed import HOUR
from pipelines.priced import START, impatient, points_of, published, random_walk, small
from report.drawn import line

FOLDS, STEPS = 2, 3
FEW = (f"backtest.folds={FOLDS}", f"forecast.steps={STEPS}", "training.epochs=1")
SECONDS_TO_A_FOLD = 300


def frames(folder: Path) -> list[pd.DataFrame]:
    return [files.required_fold(folder, number).frame for number in range(1, FOLDS + 1)]


def one_killed(root: Path) -> None:
    """A back-test in a process of its own, killed with all its children after its first fold."""
    wanted = [option for value in (*prepared.SETTINGS, *FEW) for option in ("--set", value)]
    command = [sys.executable, "-m", "bitstorm.cli", "backtest", "--workspace", str(root)]
    process = subprocess.Popen(
        [*command, *wanted, "--set", "spark.master=local[1,1]"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + SECONDS_TO_A_FOLD
    while not list(root.glob("backtests/*/fold-*.parquet")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.faults
def test_a_killed_backtest_goes_on_to_the_same_bits(
    spark_session, indicators_workspace, workspace_copy
):
    whole = backtest(prepared.context(workspace_copy(indicators_workspace), *FEW))
    root = workspace_copy(indicators_workspace)
    one_killed(root)
    there = len(list(root.glob("backtests/*/fold-*.parquet")))
    assert 1 <= there < FOLDS
    check_resumed(root, whole, FOLDS - there)


def check_resumed(root: Path, whole, missing: int) -> None:
    """The back-test that was begun there computes what is missing, and has all bits of `whole`."""
    resumed = backtest(prepared.context(root, *FEW))
    assert (resumed.backtest, resumed.computed) == (whole.backtest, missing)
    ours, theirs = frames(Path(resumed.folder)), frames(Path(whole.folder))
    for one, other in zip(ours, theirs, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert resumed.models == whole.models


def one_left(root: Path, whole) -> Path:
    """What a killed back-test leaves: the fold that ended first, whole, and the start of a file."""
    plan = make_plan(prepared.context(root, *FEW))
    left = plan.folder
    assert left.name == whole.backtest
    left.mkdir(parents=True)
    write_metrics(left / files.RECORD, plan.record(state=files.RUNNING))
    for name in (".lock", f"fold-{FOLDS}.parquet"):
        shutil.copy(Path(whole.folder) / name, left)
    half = left / f"{durable_io.TEMPORARY}fold-1.parquet-1"
    half.write_bytes((Path(whole.folder) / "fold-1.parquet").read_bytes()[:1000])
    return half


@pytest.mark.slow
def test_a_backtest_is_whole_and_goes_on_where_it_ended(
    spark_session, indicators_workspace, workspace_copy
):
    context = prepared.context(workspace_copy(indicators_workspace), *FEW)
    log = context.workspace.root / "log"
    whole = backtest(replace(context, stages=StageLog("backtest", log)))
    check_stages(log, whole)
    folder = Path(whole.folder)
    assert (whole.folds, whole.computed, whole.idle) == (FOLDS, FOLDS, False)
    pictures = ("folds", "skill_by_step", "error_by_step", "coverage", "evidence")
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        *(f"{name}.{kind}" for name in pictures for kind in ("png", "svg")),
        *(f"fold-{number}.parquet" for number in range(1, FOLDS + 1)),
        "evidence.parquet", "volatility.parquet", "backtest.json", "metrics.json",
    }  # fmt: skip
    check_frames(whole, folder)
    check_page(context, folder)
    check_pictures(whole)
    again = backtest(impatient(context))
    assert again.idle and again == replace(whole, computed=0, seconds=again.seconds)
    cheaper = backtest(impatient(prepared.context(context.workspace.root, *FEW, "forecast.fee=1")))
    assert cheaper.idle and cheaper.backtest == whole.backtest
    assert {grades["fee"] for grades in cheaper.grades.values()} == {1.0}

    root = workspace_copy(indicators_workspace)
    half = one_left(root, whole)
    check_resumed(root, whole, FOLDS - 1)
    assert not half.exists()


def check_stages(log: Path, whole) -> None:
    """Each fold has a line in the log of stages."""
    found = [json.loads(line) for line in log.open()]
    # Folds are tasks, which end in any order.
    assert sorted(line["stage"] for line in found) == [f"fold {n}" for n in range(1, FOLDS + 1)]
    assert {line["snapshot"] for line in found} == {whole.indicators}
    assert all(0 < line["seconds"] < whole.seconds for line in found)


def check_pictures(whole) -> None:
    """The result draws its own numbers."""
    (skill,), (errors,), (evidence,) = (
        draw(theme="dark").axes
        for draw in (whole.plot_skill, whole.plot_errors, whole.plot_evidence)
    )
    for name in ("network", "drift"):
        assert line(skill, name)[0] == whole.models[name].skill_step_1
        assert line(errors, name)[0] == whole.models[name].rmse_step_1
    e_value = whole.grades["network"]["information"]
    assert line(evidence, "e-information")[-1] == pytest.approx(e_value["log_e"] / np.log(10))
    assert len(line(evidence, "e-information")) == whole.grades["network"]["count"]
    _, by_fold = whole.plot_folds().axes
    (bars,) = by_fold.containers
    assert bars[0].get_xydata()[:, 1].tolist() == list(range(1, FOLDS + 1))
    network = whole.plot_coverage().axes[1]
    overall = np.array(whole.intervals["around"]["network"]["overall"], float)
    held = overall - whole.intervals["levels"]
    np.testing.assert_allclose(line(network, "all"), 100 * held)


def check_frames(whole, folder: Path) -> None:
    """The facts of the frames against the batches' prices, hour by hour."""
    record = json.loads((folder / "backtest.json").read_text())
    price = np.full(prepared.HOURS, np.nan)
    price[prepared.hours()] = prepared.prices()
    price = price.astype(np.float32).astype(np.float64)
    carried = price.copy()
    carried[slice(*prepared.SHORT_HOLE)] = price[prepared.SHORT_HOLE[0] - 1]
    rows = 0
    for fold, frame in zip(record["folds"], frames(folder), strict=True):
        first, last = (
            (fold[name] - prepared.FIRST_MS) // HOUR for name in ("test_from_ms", "test_until_ms")
        )
        # A window of 8 returns needs 9 prices in a row.
        origins = [n for n in range(first, last + 1) if not np.isnan(carried[n - 8 : n + 1]).any()]
        assert fold["windows"]["test"] == len(origins)
        expected = [
            (prepared.FIRST_MS + n * HOUR, step, carried[n], outcome(price, carried, n, step))
            for n in origins
            for step in range(1, STEPS + 1)
        ]
        columns = ["origin_timestamp", "step", "origin_price", "actual"]
        found = frame[columns].astype({"step": "int64"})
        pd.testing.assert_frame_equal(
            found, pd.DataFrame(expected, columns=columns), check_exact=True
        )
        assert frame["persistence"].equals(frame["origin_price"])
        until = (fold["validate_until_ms"] - prepared.FIRST_MS) // HOUR
        drift = np.nanmean(np.diff(np.log(carried[: until + 1]))) * frame["step"]
        np.testing.assert_allclose(frame["drift"], frame["origin_price"] * np.exp(drift), 1e-12)
        rows += int(frame["actual"].notna().sum())
    assert whole.rows == rows
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (
        metrics["models"].keys()
        == whole.models.keys()
        == metrics["grades"].keys() | {"persistence"}
    )
    count = len(pd.concat(frames(folder))) // STEPS
    assert metrics["intervals"]["origins"] == count == whole.origins
    # Recipe A has windows of 720 hours: 900 are too few for it.
    simple = {"persistence", "ewma", "har", "log_har", "garch_t"}
    assert metrics["volatility"]["models"].keys() - {"network"} == simple


def check_page(context, folder: Path) -> None:
    """The dashboard shows this back-test: the evidence and the volatility of the whole series."""
    found = read_backtest(context)
    assert found is not None and found.evidence is not None and found.volatility is not None
    assert (found.name, found.horizon) == (folder.name, 24)
    written = files.read_finished(folder)
    assert written is not None and found.metrics == written.metrics
    snapshot = snapshots.required(context.workspace.indicators)
    series = read_series(snapshot, points=10_000)
    frame = pd.concat(frames(folder), ignore_index=True)
    pd.testing.assert_frame_equal(found.evidence, judgement.evidence(frame, series))
    pd.testing.assert_frame_equal(found.volatility, judgement.day_volatility(frame, series))
    assert len(found.volatility) == frame["origin_timestamp"].nunique()


def outcome(price: np.ndarray, carried: np.ndarray, origin: int, step: int) -> float:
    """The observed price so many hours later; NaN after a cut."""
    whole = not np.isnan(carried[origin : origin + step + 1]).any()
    return price[origin + step] if whole else np.nan


@pytest.mark.slow
def test_a_fold_depends_on_its_own_past_alone(spark_session, tmp_path):
    settings = ("backtest.folds=2", "backtest.scheme=sliding", f"forecast.steps={STEPS}")
    # 601 points: the second fold tests the origins 449 to 597, and is fitted on 149 to 437.
    begin, changed = 149, 500
    prices, others = random_walk(5), random_walk(5)
    others[:begin] *= np.linspace(3, 1.5, begin)
    others[changed:] *= np.linspace(1.5, 3, len(prices) - changed)
    found = []
    for name, values in (("first", prices), ("other", others)):
        context = small(tmp_path / name, *settings, "training.epochs=1")
        plan = make_plan(published(context, points_of(values)))
        plan.folder.mkdir(parents=True)
        with write_blocks(context, spark_session, plan.snapshot, plan.spec) as stored:
            work = plan.work(stored, context.settings)
            (done,) = run_folds(spark_session, work, plan.folds[1:])
        files.write_fold(plan.folder, done)
        found.append(files.required_fold(plan.folder, 2))
    assert found[0].record["scaler"] == found[1].record["scaler"]
    ours, theirs = (
        one.frame[one.frame["origin_timestamp"] < START + changed * HOUR] for one in found
    )
    assert len(ours) == (changed - 449) * STEPS
    columns = [name for name in ours.columns if name != "actual"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_exact=True)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ("backtest.embargo=10", UsageError, "embargo is 10, expected at least 32"),
        ("backtest.baselines=[drift, wind]", UsageError, "names wind, expected some of persist"),
        ("training.horizon=30", UsageError, "set forecast.steps to at least 30"),
        ("backtest.folds=90", DataError, "found 200 points, expected at least"),
        ("training.features=[price, ma_5]", DataError, "names ma_5, which the indicators"),
    ],
)
def test_what_cannot_work_is_refused_before_spark(tmp_path, settings, error, said):
    context = published(small(tmp_path, settings), points_of(random_walk(2)[:200]))
    with pytest.raises(error, match=said):
        backtest(impatient(context))
    assert not context.workspace.backtests.exists()


def test_two_writers_of_one_backtest_are_kept_apart(tmp_path):
    context = published(small(tmp_path), points_of(random_walk(2)[:400]))
    with (
        files.writing(make_plan(context).folder),
        pytest.raises(StoreError, match=f"another run .process {os.getpid()} on .* is writing"),
    ):
        backtest(impatient(context))
