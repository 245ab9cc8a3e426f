"""What `backtest` says about its folds: `metrics.json`, `backtest.json` and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bitstorm.backtest import files, judgement, outlook
from bitstorm.backtest.files import Stored
from bitstorm.backtest.plan import Plan
from bitstorm.backtest.tracking import Part, track_parts
from bitstorm.context import Context
from bitstorm.model.series import Series, read_series
from bitstorm.report.summary import mark_of, write_metrics


def judge_folds(
    context: Context, plan: Plan, found: Sequence[Stored], models: Mapping[str, Any], *, new: bool
) -> Mapping[str, Any]:
    """The content of `metrics.json`: these scores of the `models`, and their judgement. Writes all
    files but the folds where a fold is `new`, where a file is missing, and for another fee."""
    from bitstorm.report import canvas, pictures

    fee, bound = context.settings.forecast.fee, context.workspace.bound_to() or context.origin()
    known = None if new else files.read_finished(plan.folder)
    there = (plan.folder / files.EVIDENCE).exists()
    if known is not None and known.metrics.get("fee") == fee and there:
        return known.metrics
    frames = [stored.frame for stored in found]
    frame = pd.concat(frames, ignore_index=True)
    series = read_series(plan.snapshot, points=plan.last - plan.first + 1)
    record = plan.record(state=files.FINISHED, fits=[stored.record for stored in found])
    full = context.settings.backtest.volatility
    recent = _newest(series, outlook.POINTS)
    metrics = {
        **vars(bound),
        **{name: record[name] for name in ("indicators", "prices")},
        "fee": fee,
        "models": models,
        "grades": judgement.grades(
            frame, series, frequency=record["frequency"], source=bound.source, fee=fee
        ),
        "folds": judgement.fold_skills(frames),
        "intervals": judgement.interval_scores(frame, recent, full=full),
        "volatility": judgement.volatility_scores(frame, recent) if full else None,
    }
    evidence = judgement.evidence(frame, series)
    files.write_frame(plan.folder / files.EVIDENCE, evidence)
    if "variance" in frame:
        volatility = judgement.day_volatility(frame, series)
        files.write_frame(plan.folder / files.VOLATILITY, volatility)
    drawn = pictures.backtest_pictures(metrics, record["folds"], evidence, mark=mark_of(metrics))
    canvas.save(drawn, plan.folder)
    write_metrics(plan.folder / files.METRICS, metrics)
    write_metrics(plan.folder / files.RECORD, record)
    _track(context, plan, found, models)
    written = files.read_finished(plan.folder)
    return metrics if written is None else written.metrics


def _track(
    context: Context, plan: Plan, found: Sequence[Stored], models: Mapping[str, Any]
) -> None:
    """Send the back-test and its folds to MLflow, where a place is named."""
    fits = ("epochs", "best_epoch", "best_validation_loss", "seconds")

    def skills(fold: int) -> dict[str, float]:
        return {f"{n}.skill": part["all"]["folds"][fold]["skill"] for n, part in models.items()}

    folds = [
        Part(
            f"{plan.folder.name} fold {fold.number}",
            fold.times_ms(plan.spec.step_ms),
            {name: stored.record[name] for name in fits} | skills(place),
        )
        for place, (fold, stored) in enumerate(zip(plan.folds, found, strict=True))
    ]
    track_parts(
        "backtest",
        plan.folder.name,
        folds,
        params={**plan.recipe["training"], **plan.recipe["backtest"]},
        metrics={f"{name}.skill": part["all"]["pooled"]["skill"] for name, part in models.items()},
        snapshot=plan.snapshot,
        warn=context.console.warn,
    )


def _newest(series: Series, points: int) -> Series:
    """The newest points: a longer series makes intervals slow, and no better."""
    dropped = max(0, len(series.price) - points)
    return Series(
        series.first_ms + dropped * series.step_ms, series.step_ms, series.price[dropped:]
    )
