"""The result of a study as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bitstorm.cli.render_data import count_text, table
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.backtest.tuner import Judged
    from bitstorm.pipelines.tune import Tuned


def tune_lines(result: Tuned) -> list[str]:
    """The best trial beside the settings, how far validation flattered, and where the files are."""
    # The first trial has the settings.
    same = result.best == result.default
    computed = "all were there" if result.idle else f"{result.computed} computed now"
    saved = f"which left out at most {result.epochs_saved} of {result.epochs:,} epochs"
    rows: list[Sequence[str]] = [
        ("", "validation skill", "test skill", "validation flatters by"),
        *([] if result.default is None else [_row("settings", result.default)]),
        *([] if same else [_row(f"best (trial {result.best.trial})", result.best)]),
    ]
    lines = [
        f"{count_text(result.trials, 'trial')} ({computed}), {result.pruned} pruned"
        + (f", {saved}" if result.pruned else ""),
        *table(rows, heading=True),
        f"best: {values_text(result.best.values)}",
    ]
    if same:
        lines.append("No trial is better than the settings.")
    elif result.default is not None and result.best.test_skill <= result.default.test_skill:
        lines.append("On the test part the best trial is not better than the settings.")
    if result.importance:
        shares = (f"{name} {style.share(v, digits=0)}" for name, v in result.importance.items())
        lines.append(f"weight in whether a trial is in the better half: {', '.join(shares)}")
    lines.append(f"{result.folder}/study.json has every trial")
    if result.overlay is not None:
        lines.append(f"use it: bitstorm train --config {result.overlay}")
    return lines


def values_text(values: Mapping[str, int | float]) -> str:
    """`look_back 60, units 50, …`."""
    return ", ".join(f"{name} {style.small(value)}" for name, value in values.items())


def _row(name: str, judged: Judged) -> tuple[str, str, str, str]:
    numbers = (judged.validation_skill, judged.test_skill, judged.flattery)
    return (name, *map(style.score, numbers))  # type: ignore[return-value]
