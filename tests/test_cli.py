"""The commands as a user types them: exit codes, sentences, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm import __version__

BITSTORM = Path(sys.executable).with_name("bitstorm")


def bitstorm(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BITSTORM__")}
    return subprocess.run(
        [BITSTORM, *map(str, arguments)],
        cwd=cwd,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_lists_the_commands_in_the_order_of_the_datas_way(tmp_path):
    shown = bitstorm("--help", cwd=tmp_path)
    names = [line.split()[0] for line in shown.stdout.split("Commands:")[1].splitlines() if line]
    expected = "collect backfill import ingest indicators stats train forecast report run status"
    assert names[: len(expected.split())] == expected.split()
    assert bitstorm("--version", cwd=tmp_path).stdout.strip().endswith(__version__)


def test_wrong_settings_are_all_told_at_once_with_exit_code_2(tmp_path):
    done = bitstorm("status", "--set", "a.b=1", "--set", "grid.max_gap=-1", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "2 settings are wrong" in done.stderr and "grid.max_gap" in done.stderr
    assert "Traceback" not in done.stderr


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
def test_bad_usage_is_exit_code_2(tmp_path, arguments):
    done = bitstorm(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_config_show_says_where_each_value_came_from(tmp_path):
    done = bitstorm(
        "config", "show", "--json", "--set", "training.epochs=3",
        cwd=tmp_path, BITSTORM__GRID__FREQUENCY="5m",
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["training.epochs"] == {"value": 3, "origin": "--set"}
    assert shown["grid.frequency"]["origin"] == "environment BITSTORM__GRID__FREQUENCY"
    assert shown["training.horizon"] == {"value": 1, "origin": "default"}


def test_the_status_of_an_empty_workspace_is_no_error(tmp_path):
    done = bitstorm("status", "--workspace", "w", "--json", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    status = json.loads(done.stdout)
    assert status["prices"] is None and status["waiting_batches"] == 0
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("indicators", "bitstorm ingest"),
        ("stats", "bitstorm ingest"),
        ("train", "indicators"),
        ("report", "bitstorm forecast"),
    ],
)
def test_a_command_without_what_it_needs_says_what_to_run_first(tmp_path, command, said):
    done = bitstorm(command, "--workspace", "w", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_nothing_to_ingest_is_exit_code_3_only_when_asked(tmp_path):
    assert bitstorm("ingest", cwd=tmp_path).returncode == 0
    assert bitstorm("ingest", "--fail-if-idle", cwd=tmp_path).returncode == 3


def test_debug_shows_the_traceback_that_is_otherwise_spared(tmp_path):
    done = bitstorm("indicators", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr and "SnapshotMissing" in done.stderr


def test_progress_goes_to_standard_error_and_to_the_log_file_unless_quiet(tmp_path):
    loud = bitstorm("collect", "--log-file", "log.txt", cwd=tmp_path)
    assert loud.returncode == 0
    again = bitstorm("collect", "--json", "--quiet", cwd=tmp_path)
    result = json.loads(again.stdout)
    assert again.stderr == ""
    assert result["source"] == "simulated:7" and result["observation"]["price"] > 0


def test_a_backfill_then_a_status_that_counts_it_as_waiting(tmp_path):
    done = bitstorm("backfill", "--days", "10", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and 220 <= result["points"] <= 250
    status = json.loads(bitstorm("status", "--json", cwd=tmp_path).stdout)
    assert status["waiting_batches"] == len(result["batches"]) >= 1


def test_an_import_preview_shows_rows_and_writes_nothing(tmp_path):
    (tmp_path / "mine.csv").write_text("when,close\n1609459200,29000\n1609462800,29100\n")
    done = bitstorm(
        "import", "mine.csv", "--timestamp-column", "when", "--price-column", "close",
        "--unit", "s", "--stamp", "open", "--bar", "1h", "--preview",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert "2021-01-01T01:00:00Z, 29000" in done.stdout
    assert not (tmp_path / "workspace").exists()


def test_a_dry_run_shows_slices_and_cost_and_fetches_nothing(tmp_path):
    arguments = ["backfill", "--days", "200", "--dry-run"]
    plan = json.loads(bitstorm(*arguments, "--json", cwd=tmp_path).stdout)
    assert plan["calls"] == plan["credits"] == len(plan["slices"]) >= 3
    assert plan["points"] == sum(one["points"] for one in plan["slices"])
    assert plan["points"] == pytest.approx(200 * 24, abs=2)
    assert "nothing was fetched" in bitstorm(*arguments, cwd=tmp_path).stdout
    assert not (tmp_path / "workspace").exists()


def test_the_progress_of_a_backfill_tells_points_gaps_calls_and_credits(tmp_path):
    arguments = ["backfill", "--days", "200", "--json", "--log-file", "log.txt"]
    result = json.loads(bitstorm(*arguments, cwd=tmp_path).stdout)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == result["slices"] == result["calls"] == result["credits"]
    assert f"[{'#' * 20}]" in lines[-1] and "." * 5 in lines[0]
    for told in (
        f"slice {result['slices']}/{result['slices']}",
        f"{result['points']:,} points",
        f"{result['empty']} hours without one",
        f"{result['calls']} calls  {result['credits']} credits",
    ):
        assert told in lines[-1]


def test_gaps_come_as_a_table_and_as_json(tmp_path):
    empty = bitstorm("gaps", cwd=tmp_path)
    assert empty.returncode == 0 and "no prices yet" in empty.stdout
    bitstorm("backfill", "--days", "60", cwd=tmp_path)
    found = json.loads(bitstorm("gaps", "--json", cwd=tmp_path).stdout)
    assert found["expected"] == found["present"] + found["missing"]
    assert found["missing"] == sum(gap["missing"] for gap in found["gaps"]) > 0
    assert {gap["state"] for gap in found["gaps"]} <= {"empty", "open"}
    shown = bitstorm("gaps", cwd=tmp_path).stdout
    assert shown.count("confirmed empty") == sum(g["state"] == "empty" for g in found["gaps"])
    status = json.loads(bitstorm("status", "--json", cwd=tmp_path).stdout)
    assert (status["expected"], status["missing"]) == (found["expected"], found["missing"])


def test_a_known_file_is_recognised_and_shown_before_it_is_taken(tmp_path):
    (tmp_path / "btc.csv").write_text(
        "1735689600000000,93576.00,94509.42,93489.03,94401.14,755.99,1735693199999999,71064311.9,"
        "129000,401.1,37712345.6,0\n"
    )
    preview = ("import", "btc.csv", "--format", "auto", "--preview")
    done = bitstorm(*preview, cwd=tmp_path)
    assert "2025-01-01T00:00:00Z, 94401.14" in done.stdout
    assert "say --stamp open" in done.stdout
    done = bitstorm(*preview, "--stamp", "open", cwd=tmp_path)
    assert "2025-01-01T01:00:00Z, 94401.14" in done.stdout
    assert "note: this is taken for klines of Binance" in done.stdout
