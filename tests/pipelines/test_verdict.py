"""`verdict` as a user types it: the grades of metrics.json, and the proof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitstorm.cli.render_models import proof_failure
from bitstorm.evaluation import skill_tests
from bitstorm.evaluation.markets import Proof, Rate
from bitstorm.evaluation.verdict import Grades, judge
from bitstorm.report.summary import write_metrics
from command import command


def grades() -> Grades:
    random = np.random.default_rng(1)
    returns, forecasts = random.normal(0, 0.006, 500), random.normal(0, 1e-4, 500)
    return judge(
        outcomes=returns, forecasts=forecasts, volatility=skill_tests.known_volatility(returns),
        horizon=1, frequency="1h", data="simulated market", fee=10.0,
    )  # fmt: skip


def with_metrics(folder: Path, **others: object) -> Path:
    path = folder / "w" / "reports" / "metrics.json"
    about = {"source": "simulated:7", "coin": "bitcoin", "vs_currency": "usd", "run": "RUN-1"}
    write_metrics(path, {**about, **others})
    return folder / "w"


def test_the_grades_of_the_last_forecast_are_shown(tmp_path):
    found = grades()
    workspace = with_metrics(tmp_path, grades=found.to_json())
    shown = command("verdict", "--workspace", workspace)
    text = " ".join(shown.stdout.split())
    assert (shown.code, shown.stderr) == (0, "")
    for part in ("SIMULATED market (seed 7)", "RUN-1", found.headline, *found.details.values()):
        assert part in text
    assert "1,000 simulated markets, seed 1, fee 10 basis points" in text
    answer = json.loads(command("verdict", "--workspace", workspace, "--json").stdout)
    assert answer["grades"] == json.loads(json.dumps(found.to_json()))
    assert answer["error_rates"]["markets"] == 1_000


def test_without_grades_it_says_what_to_do(tmp_path):
    missing = command("verdict", "--workspace", tmp_path / "w")
    assert (missing.code, missing.stdout) == (1, "")
    assert "run `bitstorm forecast` first" in missing.stderr
    older = command("verdict", "--workspace", with_metrics(tmp_path))
    assert (older.code, older.stdout) == (1, "")
    assert "metrics.json: run `bitstorm forecast` again" in older.stderr


def test_the_proof_prints_rates_beside_claims(tmp_path):
    options = ("verdict", "--workspace", tmp_path / "w", "--prove", "--markets", 10)
    shown = command(*options, "--set", "forecast.fee=3")
    assert shown.code == 0
    assert shown.stderr.splitlines() == []
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("10 simulated markets, seed 1, fee 3 basis points")
    cells = [line.strip().split("   ") for line in lines[3:-1]]
    assert [(row[0], row[-1].strip()) for row in cells] == [
        ("informative", "≤ 2, ≥ 70"),
        ("informative", "≤ 2"),
        ("more accurate", "≤ 5"),
        ("more accurate", "≤ 5, ≥ 95"),
        ("more accurate, live", "≤ 2"),
        ("more accurate, live", "≤ 2, ≥ 85"),
        ("worth its costs", "≤ 2"),
        ("worth its costs", "≤ 2"),
        ("more accurate, 24 steps", "≤ 5"),
        ("more accurate, 24 steps", "≤ 5"),
    ]
    answer = json.loads(command(*options, "--seed", 0, "--json").stdout)
    assert (answer["markets"], answer["seed"], answer["fee"]) == (10, 0, 10.0)
    assert {"rule", "model", "hours", "share", "standard_error"} == set(answer["rates"][0])


@pytest.mark.parametrize("option", ["--markets", "--seed"])
def test_options_of_the_proof_need_it(tmp_path, option):
    refused = command("verdict", "--workspace", tmp_path / "w", option, 3)
    assert refused.code == 2
    assert "belong to --prove: add it" in refused.stderr


def test_a_claim_that_does_not_hold_is_named():
    rate = Rate("informative", "no skill", 1_314, 0.2, 0.01)
    assert proof_failure(Proof(1_000, 1, 10.0, (rate,))) == (
        "informative says yes in 20.0 % of the markets with no skill after 1,314 hours, expected "
        "≤ 2 %: more than three standard errors off, so please report it"
    )
