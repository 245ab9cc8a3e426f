"""The small back-test of `run`: a first look, in seconds; `backtest` is the whole one."""

from __future__ import annotations

from dataclasses import replace

from bitstorm.backtest.fold import NETWORK
from bitstorm.context import Context
from bitstorm.core.errors import DataError, UsageError
from bitstorm.pipelines.backtest import Backtested, backtest

FOLDS, EPOCHS = 2, 1


def small_backtest(context: Context) -> Backtested | str:
    """Two folds with one epoch of training, of the network's own horizon and no later step, in this
    process: a Spark task would load TensorFlow again. The reason where the series is too short or
    the settings have no room for it."""
    settings = context.settings
    training = settings.training
    few = {
        "training": training.model_copy(update={"epochs": EPOCHS}),
        "forecast": settings.forecast.model_copy(update={"steps": training.horizon}),
        "backtest": settings.backtest.model_copy(
            update={"folds": FOLDS, "embargo": None, "volatility": False, "in_process": True}
        ),
    }
    small = replace(
        context,
        settings=settings.model_copy(update=few),
        console=replace(context.console, quiet=True),
    )
    try:
        return backtest(small)
    except (DataError, UsageError) as error:
        return f"skipped: {error}"


def small_backtest_text(result: Backtested | str) -> str:
    """One line."""
    if isinstance(result, str):
        return result
    skill = result.models[NETWORK].skill_step_1
    return f"{result.folds} small folds, skill {skill:+.4f}; the whole one is `bitstorm backtest`"
