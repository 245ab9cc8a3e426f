"""A run made again from its record: equal to the last bit, or with the place where it differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import prepared
from bitstorm.backtest.reproduce import Reproduced, failure, recomputed_step
from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError
from bitstorm.model import network, runs
from bitstorm.pipelines.reproduce import reproduce
from bitstorm.store import snapshots
from command import command
from pipelines.priced import points_of, published, random_walk, small

pytestmark = pytest.mark.slow
STEPS = ("prices", "indicators", "recomputed", "data", "network", "metrics")


@pytest.fixture
def root(prepared_workspace: Path, workspace_copy: Callable[[Path], Path]) -> Path:
    return workspace_copy(prepared_workspace)


def run_of(root: Path) -> runs.Run:
    return runs.newest(root / "checkpoints")


def made_again(root: Path, *, train: bool = False) -> Reproduced:
    return reproduce(prepared.context(root), run_of(root).name, train=train)


def results(found: Reproduced) -> dict[str, str]:
    return {step.name: step.result for step in found.steps}


def detail(found: Reproduced, name: str) -> str:
    return next(step.detail for step in found.steps if step.name == name)


def files_of(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def edit_record(root: Path, *keys: str, value: object) -> None:
    path = run_of(root).folder / runs.RECORD
    record = json.loads(path.read_text())
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(record))


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_run_is_the_same_to_the_last_bit(spark_session, root):
    before = files_of(root)
    found = made_again(root, train=True)
    assert found.equal, failure(found)
    assert results(found) == dict.fromkeys(STEPS, "equal")
    assert "8 arrays of weights, 2 epochs" in detail(found, "network")
    assert "with the new weights, in reports/metrics.json" in detail(found, "metrics")
    # The workspace is as before, and nothing is left.
    assert files_of(root) == before
    assert list((root / ".cache").glob("reproduce-*")) == []


def test_the_command_says_equal_and_exits_with_0(spark_session, root):
    done = command("reproduce", run_of(root).name, "--no-train", "--workspace", root, "--quiet")
    assert (done.code, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert {name: text.partition(":")[0] for name, text in lines.items()} == {
        **dict.fromkeys(STEPS, "equal"),
        "network": "skipped",
    }
    assert lines["metrics"] == "equal: 135 windows of the test part, in reports/metrics.json"


def test_changed_weights_and_losses_are_found(spark_session, root):
    run = run_of(root)
    changed = runs.load_network(run)
    weights = network.weights(changed)
    weights["dense/bias"] += 0.5
    network.set_weights(changed, weights)
    changed.save(run.folder / "best.keras")
    history = pd.read_csv(run.folder / "history.csv", dtype=str)
    true = history.loc[1, "loss"]
    history.loc[1, "loss"] = "0.25"
    history.to_csv(run.folder / "history.csv", index=False)
    for name in ("best.keras", "history.csv"):
        edit_record(root, "files", name, value=durable_io.file_hash(run.folder / name))
    edit_record(root, "versions", "keras", value="2.0")

    found = made_again(root, train=True)
    assert results(found) == dict.fromkeys(STEPS, "equal") | {
        "network": "differs",
        "metrics": "differs",
    }
    weights_apart, loss, reason = detail(found, "network").split("; ")
    assert weights_apart == "1 of 8 arrays of weights (largest |difference| 0.5, in dense/bias)"
    assert loss == f"loss of epoch 2 was '0.25' and is '{true}'"
    assert reason.startswith("likely reason: versions.keras was 2.0 and is 3.")
    # The report's metrics are of the true weights, as those of the new ones.
    new, report = detail(found, "metrics").split("; ")
    assert new.removeprefix("with the new weights ") == report.removeprefix(
        "in reports/metrics.json "
    )
    assert failure(found).startswith(f"run {run.name} is not reproduced: network differs: 1 of 8")


def test_a_damaged_file_of_weights_is_named(spark_session, root):
    change_a_byte(run_of(root).folder / "best.keras")
    found = made_again(root, train=True)
    assert not found.equal
    assert results(found)["network"] == "differs"
    assert "best.keras is not the file whose hash the record has" in detail(found, "network")
    assert results(found)["metrics"] == "cannot be checked"


def test_changed_values_of_the_record_are_named(spark_session, root):
    true = run_of(root).record
    edit_record(root, "scaler", "target", "scale", value=0.5)
    edit_record(root, "windows", "test", value=1)
    edit_record(root, "indicators_digest", value="ab")
    done = command("reproduce", run_of(root).name, "--no-train", "--workspace", root, "--quiet")
    assert done.code == 1
    scale, test = true["scaler"]["target"]["scale"], true["windows"]["test"]
    assert (
        f"data        differs: scaler.target.scale was 0.5 and is {scale!r}; "
        f"windows.test was 1 and is {test}\n"
    ) in done.stdout
    digest = true["indicators_digest"]
    assert f"differs: the record has the digest ab, the files have {digest}\n" in done.stdout
    assert done.stderr.startswith(f"bitstorm: run {true['run']} is not reproduced: indicators ")


def test_settings_that_the_data_cannot_serve_are_named(spark_session, root):
    edit_record(root, "settings", "look_back", value=900)
    found = made_again(root, train=True)
    assert results(found)["data"] == "differs"
    assert "without a hole for look_back 900" in detail(found, "data")
    assert results(found)["network"] == "cannot be checked"


@pytest.mark.parametrize("data_set", ["prices", "indicators"])
def test_a_changed_file_of_a_snapshot_is_named(spark_session, root, data_set):
    (file,) = snapshots.required(root / data_set).files[:1]
    change_a_byte(file)
    found = made_again(root)
    assert results(found)[data_set] == "differs"
    assert f"{file.name} of snapshot" in detail(found, data_set)
    assert results(found)["recomputed"] == "cannot be checked"
    rest = "equal" if data_set == "prices" else "cannot be checked"
    assert results(found)["data"] == results(found)["metrics"] == rest


@pytest.mark.parametrize("data_set", ["prices", "indicators"])
def test_a_removed_snapshot_is_named(spark_session, root, data_set):
    shutil.rmtree(root / data_set)
    metrics = root / "reports" / "metrics.json"
    metrics.write_text(metrics.read_text().replace(run_of(root).name, "another"))
    found = made_again(root)
    assert not found.equal
    assert results(found)[data_set] == results(found)["recomputed"] == "cannot be checked"
    assert f"of {data_set}; there are no snapshots" in detail(found, data_set)
    rest = ("equal", "skipped") if data_set == "prices" else ("cannot be checked",) * 2
    assert (results(found)["data"], results(found)["metrics"]) == rest


def test_indicators_that_differ_are_named_by_column(tmp_path):
    points = points_of(random_walk(1)[:50])
    context = published(small(tmp_path), points)
    before = snapshots.required(context.workspace.indicators)
    points.loc[7, "log_return"] = 0.25
    published(context, points)
    after = snapshots.required(context.workspace.indicators)
    assert recomputed_step(before, before).result == "equal"
    step = recomputed_step(before, after)
    assert (step.result, step.detail.partition(";")[0]) == ("differs", "log_return of 2021-01")
    published(context, points[:49])
    fewer = snapshots.required(context.workspace.indicators)
    assert "the rows of 2021-01" in recomputed_step(after, fewer).detail


def test_a_run_that_was_continued_on_other_data_is_not_checked(root):
    record = dict(run_of(root).record)
    other = {**record["sessions"][0], "indicators": "00000000-aaaaaaaaaaaa"}
    edit_record(root, "sessions", value=[other, *record["sessions"]])
    found = made_again(root)
    assert results(found)["indicators"] == "equal"
    assert results(found)["network"] == "cannot be checked"
    assert "trained on more than one snapshot (00000000-aaaaaaaaaaaa, " in failure(found)


def test_a_record_of_another_form_is_refused(root):
    record = {**run_of(root).record}
    del record["scaler"]
    (run_of(root).folder / runs.RECORD).write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"not of this version \(it lacks scaler\)"):
        made_again(root)
