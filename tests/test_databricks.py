"""The files of `databricks/`: their form, and what they do as plain Python and with `dbutils`; the
bundle that makes a job of them, and the packages that they install.

Nothing here runs on Databricks: `Widgets` stands in for `dbutils.widgets`, a list for `display`.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from databricks.bundles.jobs import CronSchedule, Job, PauseStatus
from packaging.requirements import Requirement

import bitstorm
from bitstorm.testing import shared_session

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted((CHECKOUT / "databricks").glob("*.py"))
INGEST, TRAIN, FORECAST = FILES
BETWEEN = "\n\n# COMMAND ----------\n\n"

# What a user may set with variables, so that a run takes seconds.
SMALL = {
    "TRAINING__UNITS": 4,
    "TRAINING__BATCH_SIZE": 64,
    "BACKTEST__VOLATILITY": False,
    "BACKTEST__BASELINES": ["drift"],
    "BACKTEST__IN_PROCESS": True,
    "FORECAST__STEPS": 3,
}
GIVEN = {"days": "20", "epochs": "1", "folds": "2"}


def cells(path: Path) -> list[str]:
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    assert first == "# Databricks notebook source"
    return rest.strip("\n").split(BETWEEN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_has_the_form_of_a_databricks_notebook(path: Path) -> None:
    found = cells(path)
    for cell in found:
        magic = [line.startswith("# MAGIC") for line in cell.splitlines()]
        assert all(magic) or not any(magic), cell
        # A cell of texts begins with its language; the others are code.
        assert not all(magic) or re.match(r"# MAGIC %(md|pip|restart_python)\b", cell)
        assert "COMMAND ---" not in cell
    assert "not tried on databricks" in found[0].lower()
    # Each part of the code has a text before it.
    assert len(found) % 2 == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_uses_the_public_interface_alone(path: Path) -> None:
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    froms = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "bitstorm" in plain
    assert plain - {"bitstorm", "pandas"} <= sys.stdlib_module_names
    assert froms <= {"pathlib"}
    assert not [n for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_")]


def parameters_of(path: Path) -> set[str]:
    """The names of the widgets, which are the options elsewhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMETERS"
    ]
    return set(ast.literal_eval(found))


# --- the bundle and the packages -----------------------------------------------------------------


def bundle() -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / "databricks.yml").read_text(encoding="utf-8"))


def test_the_bundles_job_has_only_fields_that_databricks_knows() -> None:
    (fields,) = bundle()["resources"]["jobs"].values()
    job = Job.from_dict(fields)
    assert isinstance(job.schedule, CronSchedule)
    assert (job.schedule.timezone_id, job.schedule.pause_status) == ("UTC", PauseStatus.PAUSED)
    with pytest.raises(ValueError, match="notebok_path"):
        fields["tasks"][0]["notebook_task"]["notebok_path"] = "x"
        Job.from_dict(fields)


def test_the_bundles_tasks_run_the_notebooks_one_after_another() -> None:
    (job,) = bundle()["resources"]["jobs"].values()
    tasks = job["tasks"]
    paths = [CHECKOUT / task["notebook_task"]["notebook_path"] for task in tasks]
    assert paths == FILES
    for task, path in zip(tasks, paths, strict=True):
        assert task["notebook_task"]["base_parameters"].keys() <= parameters_of(path)
        assert "libraries" not in task
    keys = [task["task_key"] for task in tasks]
    assert [task.get("depends_on", []) for task in tasks] == [
        [], [{"task_key": keys[0]}], [{"task_key": keys[1]}],
    ]  # fmt: skip
    clusters = {one["job_cluster_key"] for one in job["job_clusters"]}
    assert {task["job_cluster_key"] for task in tasks} == clusters


def test_each_name_and_place_in_the_bundle_exists() -> None:
    text, found = (CHECKOUT / "databricks.yml").read_text(encoding="utf-8"), bundle()
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == found["variables"].keys()
    (job,) = found["resources"]["jobs"].values()
    for task in job["tasks"]:
        volume = task["notebook_task"]["base_parameters"]["volume"]
        for name, variable in found["variables"].items():
            volume = volume.replace(f"${{var.{name}}}", variable["default"])
        assert volume == "/Volumes/main/bitcoin/files"
    assert os.access(CHECKOUT / found["artifacts"]["wheel"]["build"], os.X_OK)
    assert found["sync"] == {"paths": ["databricks", "dist"], "include": ["dist/*.whl"]}
    assert "not tried on databricks" in text.lower()


def test_the_bundles_schedule_is_a_quartz_expression() -> None:
    (job,) = bundle()["resources"]["jobs"].values()
    *times, of_month, month, of_week = job["schedule"]["quartz_cron_expression"].split()
    assert all(0 <= int(one) < most for one, most in zip(times, (60, 60, 24), strict=True))
    # Quartz wants a question mark for one of the two days.
    assert sorted((of_month, of_week)) == ["*", "?"] and month == "*"


def test_the_notebooks_install_the_lock_without_spark() -> None:
    made = runpy.run_path(str(CHECKOUT / "scripts" / "lib" / "databricks_requirements.py"))
    listed = (CHECKOUT / "databricks" / "requirements.txt").read_text(encoding="utf-8")
    assert listed == made["lines"](), f"run the command in {made['__file__']}"
    lines = [line for line in listed.splitlines() if not line.startswith("#")]
    names = {Requirement(line).name for line in lines}
    lock = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^[\w.-]+==[^\s;]+", lock, re.MULTILINE))
    assert set(lines) <= locked and not {"pyspark", "py4j", "jupyterlab"} & names
    assert {"petastorm", "pyarrow", "numpy", "tensorflow", "requests", "scipy"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_notebook_installs_the_list_and_this_version(path: Path) -> None:
    assert re.findall(r"^# MAGIC %pip (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) == [
        "install --no-deps -r requirements.txt",
        f"install --no-deps ../dist/bitstorm-{bitstorm.__version__}-py3-none-any.whl",
    ]


# --- the notebooks run ---------------------------------------------------------------------------


def arguments_of(path: Path, **further: str) -> dict[str, str]:
    """The parameters of the file that are set, by name."""
    known = parameters_of(path)
    return {name: value for name, value in (GIVEN | further).items() if name in known}


def test_all_files_take_their_parameters_in_the_same_way() -> None:
    """Only the names differ, so one of them shows how all run as plain Python."""
    found = set()
    for path in FILES:
        (cell,) = [cell for cell in cells(path) if "ArgumentParser" in cell]
        found.add(cell.partition('\nif "dbutils" in globals():')[2])
    (text,) = found
    assert "parser.parse_args" in text and "dbutils.widgets.get" in text


@pytest.mark.slow
def test_the_first_runs_as_plain_python(
    pytestconfig: pytest.Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shared_session(pytestconfig)
    given = arguments_of(INGEST, workspace=str(tmp_path / "workspace"))
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", [str(INGEST), *options])
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setenv(f"BITSTORM__{name}", str(value))
    capfd.readouterr()
    runpy.run_path(str(INGEST), run_name="__main__")
    out, err = capfd.readouterr()
    assert err == ""
    assert "SIMULATED market" in out and "trend" in out
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


class Widgets:
    """Databricks' `dbutils.widgets` with the values that a job passes."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values, self.defaults = values, dict[str, str]()

    def text(self, name: str, default: str) -> None:
        self.defaults[name] = default

    def get(self, name: str) -> str:
        return self.values.get(name, self.defaults[name])


@pytest.mark.slow
def test_they_run_with_widgets_on_a_new_disk_each(
    pytestconfig: pytest.Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared_session(pytestconfig)
    # A notebook there has no arguments of its own.
    monkeypatch.setattr(sys, "argv", ["notebook", "--unknown"])
    for name, value in SMALL.items():
        monkeypatch.setenv(f"BITSTORM__{name}", str(value))
    workspace, volume = tmp_path / "disk" / "bitstorm", tmp_path / "Volumes" / "main"
    volume.mkdir(parents=True)
    kinds = []
    for path in FILES:
        # Another cluster: its disk is empty.
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
        given = arguments_of(path, workspace=str(workspace), volume=str(volume))
        widgets, shown = Widgets(given), list[Any]()
        runpy.run_path(
            str(path),
            init_globals={"dbutils": SimpleNamespace(widgets=widgets), "display": shown.append},
        )
        assert given.keys() <= widgets.defaults.keys()
        assert all(isinstance(default, str) for default in widgets.defaults.values())
        kinds.append(["table" if isinstance(one, pd.DataFrame) else "picture" for one in shown])
        names = {file.name for file in volume.iterdir()}
        assert "bitstorm.tar" in names
        assert not [name for name in names if name.endswith(".part")]
    assert kinds == [
        ["table", "table", "picture"],
        ["table", "picture"],
        ["table", "picture", "picture", "table", "picture"],
    ]
    assert {"dashboard.html", "summary.txt", "metrics.json"} <= names
    # All that is on the disk is in the file, with the same bytes.
    with tarfile.open(volume / "bitstorm.tar") as kept:
        copies = {
            Path(one.name): content.read()
            for one in kept.getmembers()
            if (content := kept.extractfile(one)) is not None
        }
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        assert copies[file.relative_to(workspace)] == file.read_bytes(), file
    assert capsys.readouterr().out.count("SIMULATED market") >= 3
