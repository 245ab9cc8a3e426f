"""The examples for systemd, cron, Airflow and Kubernetes: what they say is understood."""

from __future__ import annotations

import configparser
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bitstorm.cli import bitstorm
from bitstorm.cli.common import IDLE
from bitstorm.core.config import load

SERVICE = Path(__file__).resolve().parents[1] / "conf" / "service"
UNITS = ("bitstorm-collect.service", "bitstorm-collect.timer")


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SERVICE / name)
    return parser


def cron_lines() -> list[str]:
    lines = (SERVICE / "bitstorm.cron").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"[\d*]", line)]


def airflow_dags(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each DAG and, as `tasks`, of its operators. Airflow does not fit into this
    environment, so doubles of its three names record them."""
    dags: list[dict[str, Any]] = []

    @contextmanager
    def dag(**options: Any) -> Iterator[None]:
        dags.append({**options, "tasks": []})
        yield

    def operator(**options: Any) -> None:
        dags[-1]["tasks"].append(options)

    bash = "airflow.providers.standard.operators.bash"
    names: dict[str, dict[str, Any]] = {
        "airflow.sdk": {"DAG": dag, "chain": lambda *tasks: None},
        bash: {"BashOperator": operator},
    }
    parents = (bash.rsplit(".", count)[0] for count in range(1, 5))
    for name in (*parents, *names):
        module = ModuleType(name)
        vars(module).update(names.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(SERVICE / "bitstorm_dag.py"))
    return dags


def commands() -> list[list[str]]:
    """What the examples run, as the arguments of `bitstorm`."""
    texts = [unit(UNITS[0])["Service"]["ExecStart"], *cron_lines()]
    found = []
    for text in texts:
        words = shlex.split(text)
        program = next(i for i, word in enumerate(words) if word.endswith(".venv/bin/bitstorm"))
        found.append([word for word in words[program + 1 :] if not word.startswith(">")])
    return found


def test_the_commands_and_settings_of_the_examples_exist() -> None:
    names = []
    for name, *arguments in commands():
        names.append(name)
        context = bitstorm.commands[name].make_context(name, arguments)
        assert context.params["workspace"] == "/var/lib/bitstorm/live"
        settings = load(overrides=context.params["overrides"]).settings
        assert settings.source.mode == "coingecko"
    assert names == ["collect", "collect", "ingest"]


def test_the_dags_of_airflow_run_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    hourly, weekly = airflow_dags(monkeypatch)
    assert [task["task_id"] for task in hourly["tasks"]] == [
        "collect", "ingest", "indicators", "forecast", "report",
    ]  # fmt: skip
    assert [task["task_id"] for task in weekly["tasks"]] == [
        "backfill", "verify", "train", "backtest",
    ]  # fmt: skip
    for dag in (hourly, weekly):
        assert dag["max_active_runs"] == 1 and not dag["catchup"]
        for task in dag["tasks"]:
            program, name, *arguments = shlex.split(task["bash_command"])
            assert program.endswith(".venv/bin/bitstorm") and name == task["task_id"]
            context = bitstorm.commands[name].make_context(name, arguments)
            assert load(overrides=context.params["overrides"]).settings.source.mode == "coingecko"
            assert context.params["fail_if_idle"] and task["skip_on_exit_code"] == IDLE


@pytest.mark.parametrize("name", ["bitstorm-cronjob.yaml", "executor-pod.yaml"])
def test_kubernetes_knows_every_field_of_the_examples(name: str) -> None:
    (document,) = yaml.safe_load_all((SERVICE / name).read_text(encoding="utf-8"))
    kubernetes_validate.validate(document, "1.37", strict=True)
    broken = {**document, "spec": {**document["spec"], "schedul": "hourly"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="schedul"):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_the_cron_job_of_kubernetes_runs_a_command_that_exists() -> None:
    document = yaml.safe_load((SERVICE / "bitstorm-cronjob.yaml").read_text(encoding="utf-8"))
    pod = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name, *arguments = container["args"]
    context = bitstorm.commands[name].make_context(name, arguments)
    (mount,) = container["volumeMounts"]
    assert context.params["workspace"].startswith(mount["mountPath"])
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"]}


def test_no_example_holds_a_key() -> None:
    for path in SERVICE.iterdir():
        assert not re.search(r"CG-[A-Za-z0-9]", path.read_text(encoding="utf-8")), path


def test_the_cron_lines_have_five_fields_in_range() -> None:
    ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    lines = cron_lines()
    assert len(lines) == 2
    for line in lines:
        for field, (least, most) in zip(line.split()[:5], ranges, strict=True):
            assert field == "*" or least <= int(field) <= most
        assert "%" not in line  # cron makes a line break of it
        command = line.split(maxsplit=5)[5]
        checked = subprocess.run(["sh", "-n", "-c", command], capture_output=True, check=False)
        assert checked.returncode == 0


def test_the_timer_is_hourly_and_makes_up_for_missed_hours() -> None:
    timer, service = unit(UNITS[1]), unit(UNITS[0])
    assert timer["Timer"]["OnCalendar"] == "hourly"
    assert timer["Timer"]["Persistent"] == "true"
    assert service["Service"]["Type"] == "oneshot"
    assert "Environment" not in service["Service"]  # a key there is readable by all


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    for name in UNITS:
        text = (SERVICE / name).read_text(encoding="utf-8")
        # systemd looks whether the program is there; the example's path is another machine's.
        text = text.replace("/opt/bitstorm/.venv/bin/bitstorm", sys.executable)
        (tmp_path / name).write_text(text)
    checked = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in checked.stderr.splitlines() if "bitstorm" in line]
    assert ours == []
    assert checked.returncode == 0
    (tmp_path / UNITS[1]).write_text("[Timer]\nOnCalendar=sometimes\n")
    broken = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / UNITS[1])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "sometimes" in broken.stderr
