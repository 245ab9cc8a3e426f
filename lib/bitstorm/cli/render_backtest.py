"""The result of a back-test as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitstorm.cli.render_data import count_text, source_text, table
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.pipelines.backtest import Backtested


def backtest_lines(result: Backtested) -> list[str]:
    """The facts, and a line for each model."""
    steps = f"steps 1 to {result.steps}" if result.steps > 1 else "step 1"
    rows: list[Sequence[str]] = [
        ("model", "RMSE step 1", "skill step 1", f"skill {steps}", "worst fold")
    ]
    for name, model in result.models.items():
        worst = f"{style.score(model.worst_skill)} (fold {model.worst_fold})"
        skills = (style.score(model.skill_step_1), style.score(model.skill))
        rows.append((name, style.small(model.rmse_step_1), *skills, worst))
    computed = "all were there" if result.idle else f"{result.computed} computed now"
    facts = [
        ("source", source_text(result.source)),
        ("snapshot", f"indicators {result.indicators}"),
        ("folds", f"{result.folds}, {computed}"),
        ("forecasts", f"{result.rows:,} a model, from {count_text(result.origins, 'origin')}"),
        ("errors", "RMSE of log returns; skill: 1 - MSE / MSE of persistence"),
        ("files", result.folder),
    ]
    return [*table(facts, whole=True), *table(rows, heading=True)]
