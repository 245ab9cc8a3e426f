"""The score of logged forecasts as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitstorm.cli.render_data import count_text, table
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.backtest.forecast_log import Score
    from bitstorm.pipelines.forecast_score import Scored


def score_lines(scored: Scored) -> list[str]:
    """All runs together with the errors by step, then each run."""
    whole = scored.all_runs
    steps = [("step", "scored", "RMSE log return", "price stays", "skill")]
    steps += [
        (str(of.step), f"{of.scored:,}", style.small(of.rmse), style.small(of.rmse_persistence),
         style.score(of.skill))
        for of in whole.steps
    ]  # fmt: skip
    lines = table([("log", scored.forecasts), ("outcomes", f"indicators {scored.indicators}")])
    lines += _part("all runs", whole)
    lines += table(steps, heading=True) if whole.steps else []
    for score in scored.runs:
        lines += _part(f"run {score.run}", score)
    return lines


def _part(title: str, score: Score) -> list[str]:
    counts = (
        f"{score.logged:,} logged, {score.scored:,} scored, {score.waiting:,} wait for their "
        f"outcome, {score.unobserved:,} have no observed price"
    )
    facts = [
        ("forecasts", counts),
        ("coverage", coverage_text({of.level: of.share for of in score.coverage})),
        ("verdict", score.grades.headline),
        *[("", text) for text in score.grades.details.values() if score.run is None],
        *[("drift", sentence) for sentence in score.drift],
    ]
    return [title, *table(facts)]


def status_facts(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The log in the lines of `status`."""
    if found is None:
        return [("forecasts", "none yet")]
    e_values = ", ".join(f"{name} {value:.3g}" for name, value in found["e_values"].items())
    return [
        ("forecasts", f"{count_text(found['logged'], 'step')} logged, {found['scored']:,} scored"),
        ("", f"coverage: {coverage_text(found['coverage'])}; e-values: {e_values}"),
        ("", found["verdict"]),
        *[("", f"drift: {sentence}") for sentence in found["drift"]],
    ]


def coverage_text(shares: Mapping[int, float]) -> str:
    """The coverage of each level, in percent."""
    texts = (f"{style.share(share)} of {level} %" for level, share in shares.items())
    return ", ".join(texts) or "no outcome with an interval yet"
