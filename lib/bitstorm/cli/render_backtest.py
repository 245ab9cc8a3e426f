"""The results of a back-test and of its check as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.fold import NETWORK
from bitstorm.cli.render_data import count_text, source_text, table
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.backtest.leakage import Leak
    from bitstorm.pipelines.backtest import Backtested
    from bitstorm.pipelines.leakage import Checked


def backtest_lines(result: Backtested) -> list[str]:
    """The verdict and the facts, a line for each model, the coverage, and the volatility."""
    later = [f"skill steps 1 to {result.steps}"] if result.steps > 1 else []
    rows: list[Sequence[str]] = [
        ("model", "RMSE step 1", "skill step 1", *later, "grade at step 1")
    ]
    for name, model in result.models.items():
        grade = _grade(result.grades[name]) if name in result.grades else ""
        skills = (model.skill_step_1, model.skill)[: 1 + len(later)]
        rows.append((name, style.small(model.rmse_step_1), *map(style.score, skills), grade))
    computed = "all were there" if result.idle else f"{result.computed} computed now"
    facts = [
        ("verdict", result.headline),
        ("source", source_text(result.source)),
        ("snapshot", f"indicators {result.indicators}"),
        ("folds", f"{result.folds}, {computed}"),
        ("forecasts", f"{result.rows:,} a model, from {count_text(result.origins, 'origin')}"),
        ("errors", "RMSE of log returns; skill: 1 - MSE / MSE of persistence"),
        ("coverage", _coverage(result.intervals)),
        ("files", result.folder),
    ]
    return [*table(facts, whole=True), *table(rows, heading=True), *_volatility(result.volatility)]


def _grade(graded: Mapping[str, Any]) -> str:
    """A model's grades in a few words."""
    if graded.get("test") is None:
        return "too few forecasts"
    names = ("informative", "more_accurate", "less_accurate", "worth_its_costs")
    reached = [name.replace("_", " ") for name in names if graded[name]]
    return ", ".join(reached) or "no proven worth"


def _coverage(found: Mapping[str, Any]) -> str:
    """The shares held around the network's forecast, at each level, beside the noise."""
    held, levels = found["around"][NETWORK]["overall"], found["levels"]
    if all(share is None for share in held):
        return "none: the series is too short for intervals"
    pairs = ", ".join(
        f"{style.share(share)} at {style.share(level, digits=0)}"
        for level, share in zip(levels, held, strict=True)
    )
    noise = found["oracle"]["overall"]["95"][levels.index(0.9)]
    points = style.NONE if noise is None else f"{100 * noise:.1f} points"
    return f"{pairs} (chance alone: ±{points} at 90 %)"


def _volatility(found: Mapping[str, Any] | None) -> list[str]:
    """The table of the volatility forecasts, best first."""
    if not found or not found["models"]:
        return []
    rows: list[Sequence[str]] = [
        ("variance of the next day", "QLIKE", "less log_har, 95 %", "less garch_t, 95 %")
    ]
    for name, model in sorted(found["models"].items(), key=lambda item: float(item[1]["qlike"])):
        gaps = [_gap(model["against"].get(other)) for other in ("log_har", "garch_t")]
        rows.append((name, style.small(model["qlike"]), *gaps))
    return ["", *table(rows, heading=True)]


def _gap(gap: Mapping[str, float] | None) -> str:
    if gap is None:
        return ""
    return f"{gap['mean']:+.3f} ({gap['lower']:+.3f} to {gap['upper']:+.3f})"


def leakage_lines(result: Checked) -> list[str]:
    """What was compared, and the leaks in the order of the data's way."""
    leaking = {leak.name for leak in result.leaks}
    rows: list[Sequence[str]] = [("leak", "compared values", "found")]
    for name, count in result.compared.items():
        rows.append((name, f"{count:,}", "yes" if name in leaking else "no"))
    lines = [
        f"indicators {result.indicators}, seed {result.seed}: {result.points:,} points, "
        f"{count_text(result.folds, 'fold')}, {count_text(result.cuts, 'cut')}",
        "each cut once without the points after it, once with other points there",
        *table(rows, heading=True),
        *[f"not checked, the series is too short: {what}" for what in result.unchecked],
        *map(_leak_text, result.leaks),
    ]
    if result.plant is not None and result.passed:
        others = "; the later ones can follow from it" if len(result.leaks) > 1 else ""
        lines.append(f"the planted leak was found and named{others}")
    elif not result.leaks:
        lines.append("no value that is known at a cut changes with later points")
    return lines


def leakage_failure(result: Checked) -> str:
    """Why the check failed, in one sentence."""
    if result.plant is None:
        return _leak_text(result.leaks[0])
    first = f"found first: {_leak_text(result.leaks[0])}" if result.leaks else "found no leak"
    return (
        f"the planted leak ({result.plant}) was not named, {first}; use more --cuts, another "
        "--seed, or a longer series"
    )


def _leak_text(leak: Leak) -> str:
    ahead = "" if leak.ahead is None else f", at least {count_text(leak.ahead, 'step')} ahead"
    return f"{leak.name}: {leak.found}{ahead}; {leak.advice}"
