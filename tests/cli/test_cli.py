"""The commands as a user types them: exit codes, sentences, JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from bitstorm import __version__
from bitstorm.cli import bitstorm
from bitstorm.cli.common import Invocation
from bitstorm.store.stage_log import StageLog
from command import command

BITSTORM = Path(sys.executable).with_name("bitstorm")


def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program itself, for what only a process of its own shows."""
    return subprocess.run(
        [BITSTORM, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no settings from the environment."""
    for name in [name for name in os.environ if name.startswith("BITSTORM__")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_the_commands_in_groups():
    shown = command("--help").stdout
    titles = re.findall(r"^(\w[\w ]*):$", shown, re.MULTILINE)
    assert titles == ["Options", "Data", "Indicators and models", "Operations"]
    names = re.findall(r"^  ([a-z-]+)  ", shown.split("Data:")[1], re.MULTILINE)
    assert names == list(bitstorm.commands)
    assert names[:4] == ["collect", "backfill", "import", "ingest"]


@pytest.mark.parametrize("name", [*bitstorm.commands, "config show"])
def test_the_example_in_a_commands_help_is_valid(name: str):
    if name == "config":
        return
    words = name.split()
    shown = " ".join(command(*words, "--help").stdout.split())
    example = shlex.split(shown.split("Example: bitstorm ")[1])
    assert example[: len(words)] == words
    found: click.Command = bitstorm
    for word in words:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    found.make_context(name, example[len(words) :])


def test_the_shell_completes_commands_and_options():
    def completed(*words: str) -> list[str]:
        environ = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(
            [BITSTORM],
            env={**os.environ, **environ, "_BITSTORM_COMPLETE": "bash_complete"},
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("bitstorm", "ro") == ["rollback"]
    assert "--dry-run" in completed("bitstorm", "backfill", "--d")


def test_the_version_names_what_a_report_needs():
    done = installed("--version")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == f"bitstorm {__version__}"
    found = dict(part.split(" ", 1) for part in second.split(", "))
    assert found["Python"] == platform.python_version()
    assert found["Spark"] == version("pyspark")
    assert found["TensorFlow"] == version("tensorflow")
    assert int(found["Java"].split(".")[0]) in (17, 21)


def test_the_installed_program_makes_no_noise():
    done = installed("status", "--workspace", "w", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    status = json.loads(done.stdout)
    assert status["prices"] is None and status["waiting_batches"] == 0
    assert not Path("w").exists()


def test_a_reader_that_stops_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as gone:
        done = subprocess.run(
            [BITSTORM, "config", "show"], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_settings_are_told_at_once_with_exit_code_2():
    done = installed("status", "--set", "a.b=1", "--set", "grid.max_gap=-1")
    assert done.returncode == 2 and done.stdout == ""
    assert "2 settings are wrong" in done.stderr and "grid.max_gap" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_command_is_one_sentence_and_exit_code_1():
    done = installed("indicators", "--workspace", "w")
    assert (done.returncode, done.stdout) == (1, "")
    assert "bitstorm ingest" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["status", "--loud"],
        ["backfill", "--days", "0"],
        ["stats", "--period", "1y"],
        ["stats", "--bars", "-1"],
        *[["stats", "--lags", lags] for lags in ("", "0", "1,x", "24,24", "1,,2", "-1")],
    ],
)
def test_bad_usage_is_exit_code_2(arguments):
    done = command(*arguments)
    assert done.code == 2 and "Traceback" not in done.stderr


def test_config_show_says_where_each_value_came_from(monkeypatch):
    monkeypatch.setenv("BITSTORM__GRID__FREQUENCY", "5m")
    done = command("config", "show", "--json", "--set", "training.epochs=3")
    shown = json.loads(done.stdout)
    assert shown["training.epochs"] == {"value": 3, "origin": "--set"}
    assert shown["grid.frequency"]["origin"] == "environment BITSTORM__GRID__FREQUENCY"
    assert shown["training.horizon"] == {"value": 1, "origin": "default"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("stats", "bitstorm ingest"), ("train", "indicators"), ("report", "bitstorm forecast")],
)
def test_a_command_says_what_to_run_before_it(name, said):
    done = command(name, "--workspace", "w")
    assert done.code == 1
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_nothing_to_ingest_is_exit_code_3_only_when_asked():
    assert command("ingest").code == 0
    assert command("ingest", "--fail-if-idle").code == 3


def test_debug_shows_the_traceback():
    done = command("indicators", "--debug")
    assert "Traceback" in done.stderr and "SnapshotMissing" in done.stderr


def test_progress_goes_to_stderr_and_a_log_unless_quiet(tmp_path):
    loud = command("collect", "--log-file", "log.txt")
    assert loud.code == 0
    again = command("collect", "--json", "--quiet")
    result = json.loads(again.stdout)
    assert again.stderr == ""
    assert result["source"] == "simulated:7" and result["observation"]["price"] > 0


def test_status_counts_what_a_backfill_left_waiting():
    done = command("backfill", "--days", "10", "--json")
    result = json.loads(done.stdout)
    assert done.code == 0 and 220 <= result["points"] <= 250
    status = json.loads(command("status", "--json").stdout)
    assert status["waiting_batches"] == len(result["batches"]) >= 1


def test_an_import_preview_shows_rows_and_writes_nothing(tmp_path):
    (tmp_path / "mine.csv").write_text("when,close\n1609459200,29000\n1609462800,29100\n")
    done = command(
        "import", "mine.csv", "--timestamp-column", "when", "--price-column", "close",
        "--unit", "s", "--stamp", "open", "--bar", "1h", "--preview",
    )  # fmt: skip
    assert done.code == 0
    assert "2021-01-01T01:00:00Z, 29000" in done.stdout
    assert not (tmp_path / "workspace").exists()


def test_an_ambiguous_date_is_asked_and_answered(tmp_path):
    (tmp_path / "mine.csv").write_text("day;clock;close\n01/05/2024;13:45;57,000.5\n")
    wanted = (
        "import", "mine.csv", "--timestamp-column", "day+clock", "--price-column", "close",
        "--preview",
    )  # fmt: skip
    asked = command(*wanted)
    assert asked.code == 2
    assert "--date-format '%d/%m/%Y %H:%M'" in asked.stderr
    answered = command(*wanted, "--date-format", "%d/%m/%Y %H:%M")
    assert answered.code == 0
    assert "2024-05-01T13:45:00Z, 57000.5" in answered.stdout


def test_a_dry_run_shows_slices_and_cost_and_fetches_nothing(tmp_path):
    arguments = ["backfill", "--days", "200", "--dry-run"]
    plan = json.loads(command(*arguments, "--json").stdout)
    assert plan["calls"] == len(plan["slices"]) >= 3
    assert plan["points"] == sum(one["points"] for one in plan["slices"])
    assert plan["points"] == pytest.approx(200 * 24, abs=2)
    assert "nothing was fetched" in command(*arguments).stdout
    assert not (tmp_path / "workspace").exists()


def test_a_backfill_tells_points_gaps_and_calls(tmp_path):
    arguments = ["backfill", "--days", "200", "--json", "--log-file", "log.txt"]
    result = json.loads(command(*arguments).stdout)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == result["slices"] == result["calls"]
    for told in (
        f"slice {result['slices']}/{result['slices']}",
        f"{result['points']:,} points",
        f"{result['empty'] + result['silent']} hours without one",
        f"{result['calls']} calls",
    ):
        assert told in lines[-1]


def test_hours_without_a_price_wait_and_again_fetches_them():
    first = json.loads(command("backfill", "--days", "60", "--json").stdout)
    assert first["silent"] > 0 and first["empty"] == 0
    waiting = command("backfill", "--gaps")
    assert f"{first['silent']} hours without a price: the next request is from" in waiting.stdout
    assert command("backfill", "--gaps", "--fail-if-idle").code == 3
    plan = json.loads(command("backfill", "--gaps", "--again", "--dry-run", "--json").stdout)
    assert plan["points"] >= first["silent"]
    span = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02"]
    assert command("backfill", *span, "--days", "3").code == 2
    again = command("backfill", "--again", "--days", "2", "--json")
    assert (again.code, json.loads(again.stdout)["slices"]) == (0, 1)


@pytest.mark.parametrize(
    ("days", "said"), [("30", False), ("363", False), ("400", True), ("9999", True)]
)
def test_the_reach_is_said_without_speaking_of_a_key(days, said):
    for options in (["--dry-run"], []):
        told = command("backfill", "--days", days, *options).stdout
        assert ("keyless and demo plans reach no older history" in told) is said
        assert "plan of the key" not in told


def test_a_key_that_keyless_does_not_send_is_said_once(monkeypatch):
    monkeypatch.setenv("COINGECKO_API_KEY", "CG-x")
    live = ["--set", "source.mode=coingecko", "--set", "source.base_url=http://127.0.0.1:9/api/v3"]
    done = command("collect", *live, "--set", "source.retries=0")
    assert done.code == 1
    assert done.stderr.count("COINGECKO_API_KEY is set, but source.plan is keyless") == 1
    assert "CG-x" not in done.stderr
    assert "COINGECKO" not in command("collect").stderr


def test_gaps_come_as_a_table_and_as_json():
    empty = command("gaps")
    assert empty.code == 0 and "no prices yet" in empty.stdout
    command("backfill", "--days", "60")
    found = json.loads(command("gaps", "--json").stdout)
    assert found["expected"] == found["present"] + found["missing"]
    assert found["missing"] == sum(gap["missing"] for gap in found["gaps"]) > 0
    assert {gap["state"] for gap in found["gaps"]} <= {"silent", "open"}
    for gap in found["gaps"]:
        asked = 0 if gap["state"] == "open" else gap["next_ms"] - gap["asked_ms"]
        assert asked == (gap["state"] == "silent") * 3_600_000
    shown = command("gaps").stdout
    assert shown.count("no price yet") == sum(g["state"] == "silent" for g in found["gaps"])
    status = json.loads(command("status", "--json").stdout)
    assert (status["expected"], status["missing"]) == (found["expected"], found["missing"])


def test_a_known_file_is_recognised_in_the_preview(tmp_path):
    (tmp_path / "btc.csv").write_text(
        "1735689600000000,93576.00,94509.42,93489.03,94401.14,755.99,1735693199999999,71064311.9,"
        "129000,401.1,37712345.6,0\n"
    )
    preview = ("import", "btc.csv", "--format", "auto", "--preview")
    done = command(*preview)
    assert "2025-01-01T00:00:00Z, 94401.14" in done.stdout
    assert "say --stamp open" in done.stdout
    done = command(*preview, "--stamp", "open")
    assert "2025-01-01T01:00:00Z, 94401.14" in done.stdout
    assert "note: recognised as klines of Binance" in done.stdout


def test_a_context_knows_where_each_setting_is_from(tmp_path, monkeypatch):
    monkeypatch.setenv("BITSTORM__FORECAST__STEPS", "12")
    given = Invocation(
        (), str(tmp_path), ("grid.frequency=2h",), False, True, None, None, StageLog()
    )
    assert given.context().origins == {
        "forecast.steps": "environment BITSTORM__FORECAST__STEPS",
        "grid.frequency": "--set",
    }
