"""`check-leakage` on a prepared workspace: exit code, lines, JSON, and a leak of the product."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import prepared
from bitstorm.backtest.plan import Plan, make_plan
from bitstorm.backtest.plants import PLANTS
from bitstorm.cli.render_backtest import leakage_failure, leakage_lines
from bitstorm.context import Context
from bitstorm.pipelines import leakage as pipeline
from bitstorm.pipelines.leakage import Checked, check_leakage
from command import Done, command

pytestmark = pytest.mark.slow

FOLDS = "backtest.folds=2"
STEPS = "forecast.steps=4"


def run(workspace: Path, *arguments: str) -> Done:
    given = [word for text in (*prepared.SETTINGS, FOLDS, STEPS) for word in ("--set", text)]
    return command("check-leakage", "--workspace", workspace, "--seed", "1", *given, *arguments)


def test_a_clean_workspace_passes_with_a_network(indicators_workspace):
    done = run(indicators_workspace, "--network", "--cuts", "2")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    points = prepared.HOURS - 9
    # For the points two in the test part, one early and two before gaps; three a fold; three for
    # the series; and one for the network.
    assert lines[0].endswith(f"seed 1: {points} points, 2 folds, 15 cuts")
    rows = [line.strip() for line in lines if "from the" in line]
    found = {row.split("  ")[0]: row.split()[-1] for row in rows}
    assert found["network from the future"] == "no" and {*found.values()} == {"no"}
    assert lines[-1] == "no value that is known at a cut changes with later points"


@pytest.mark.parametrize("plant", ["scaler", "embargo"])
def test_a_planted_leak_is_found_and_named(indicators_workspace, plant):
    done = run(indicators_workspace, "--plant", plant, "--cuts", "1", "--json")
    assert (done.code, done.stderr.count("bitstorm:")) == (0, 0), done.stderr
    result = json.loads(done.stdout)
    assert result["passed"] and result["leaks"][0]["name"] == PLANTS[plant].leak


def test_a_leak_of_the_product_fails_in_one_sentence(
    indicators_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_embargo(context: Context) -> Plan:
        plan = make_plan(context)
        folds = [replace(fold, validate_until=fold.test_from - 1) for fold in plan.folds]
        return replace(plan, folds=folds)

    monkeypatch.setattr(pipeline, "make_plan", without_embargo)
    done = run(indicators_workspace, "--quiet", "--cuts", "1")
    assert done.code == 1
    assert done.stderr.startswith(
        "bitstorm: missing embargo: fold 1 has 0 steps between its last fitted target and its "
        "first origin, at 2024-01-19T"
    )
    assert done.stderr.endswith(
        "expected at least 12; leave look_back plus the longest forecast between fit and test\n"
    )
    # A leak that is there already does not stand for the planted one.
    done = run(indicators_workspace, "--quiet", "--cuts", "1", "--plant", "conformal")
    assert done.code == 1
    assert "the planted leak (conformal) was not named, found first: missing embargo" in done.stderr


def test_a_series_without_room_for_a_value_says_so(indicators_workspace):
    context = prepared.context(indicators_workspace, FOLDS, STEPS)
    result = check_leakage(context, cuts=1, seed=4)
    assert isinstance(result, Checked) and result.passed
    missing = ("the variance of the steps", "the volatility forecast of recipe_a")
    assert result.unchecked == missing
    lines = leakage_lines(result)
    assert all(f"not checked, the series is too short: {what}" in lines for what in missing)
    missed = replace(result, passed=False, plant="scaler")
    assert "the planted leak (scaler) was not named, found no leak" in leakage_failure(missed)
