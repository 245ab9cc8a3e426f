"""`reproduce`: makes a training run again, from its record alone, and compares both."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bitstorm.backtest import reproduce as steps
from bitstorm.backtest.reproduce import DIFFERS, SKIPPED, UNCHECKED, Reproduced, Step
from bitstorm.context import Context
from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.settings import Grid, Indicators
from bitstorm.model import backend, runs
from bitstorm.model.runs import Run
from bitstorm.model.training_run import Attempt
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.indicators import indicators
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


def reproduce(context: Context, name: str, *, train: bool = True) -> Reproduced:
    """Make data, network and metrics of a finished run again in a temporary folder, and compare.

    Without `train` the network is not trained again. Raises ModelError where there is no such
    finished run, its record has another form, or the training breaks off.
    """
    run, folders = runs.newest(context.workspace.checkpoints, name=name), context.workspace
    settings, used = steps.recorded(run)
    backend.require(settings.backend, reason=f"run {name} was trained with {settings.backend}")
    prices, prices_step = steps.stored_step(folders.prices, run.record["prices"])
    snapshot, found = steps.stored_step(folders.indicators, run.record["indicators"])
    if snapshot is None or len(used) > 1:
        why = "the indicators of the run are missing or changed"
        if snapshot is not None:
            why = f"the run was trained on more than one snapshot ({', '.join(used)})"
        rest = [Step(n, UNCHECKED, why) for n in ("recomputed", "data", "network", "metrics")]
        return steps.reproduced(name, prices_step, found, *rest)
    found = steps.digest_step(snapshot, run.record["indicators_digest"])
    attempt = Attempt(settings, snapshot)
    with steps.temporary_folder(context) as folder, ExitStack() as session, ExitStack() as stack:
        links = ("prices", "indicators", "workspace.json")
        scratch = steps.scratch(context, folder / "run", *links, snapshot=snapshot.id)
        tensorflow = settings.backend == "tensorflow"
        session.enter_context(context.spark("reproduce", tensorflow=tensorflow))
        recomputed = _recomputed(context, folder / "indicators", prices, snapshot)
        data, data_step = steps.data_step(scratch, run, attempt, stack)
        if settings.workers == 1:
            # So that Spark takes nothing from the training.
            session.close()
        again, network = None, Step("network", SKIPPED, "not trained again (--no-train)")
        if train:
            again, network = steps.network_step(scratch, run, attempt, data)
        metrics = _metrics(scratch, run, again, folders.reports / "metrics.json")
    return steps.reproduced(name, prices_step, found, recomputed, data_step, network, metrics)


def _recomputed(
    context: Context, folder: Path, prices: Snapshot | None, snapshot: Snapshot
) -> Step:
    """Whether the recorded prices and settings give the stored indicators again."""
    if prices is None:
        return Step("recomputed", UNCHECKED, "the prices of the run are missing or changed")
    made = snapshot.manifest.details
    sections = {
        "grid": Grid(frequency=made["frequency"], max_gap=made["max_gap"]),
        "indicators": Indicators(windows=made["windows"]),
    }
    settings = context.settings.model_copy(update=sections)
    scratch = steps.scratch(context, folder, "prices", settings=settings, snapshot=prices.id)
    try:
        again = indicators(scratch)
    except DataError as error:
        return Step("recomputed", DIFFERS, str(error))
    made_again = snapshots.required(scratch.workspace.indicators, snapshot=again.snapshot)
    return steps.recomputed_step(snapshot, made_again)


def _metrics(scratch: Context, run: Run, again: Run | None, report: Path) -> Step:
    """Whether stored weights, new weights and the report give the same metrics."""

    def metrics_of(name: str) -> dict[str, Any]:
        path = Path(forecast(scratch, run=name).metrics_json)
        return dict(json.loads(path.read_text(encoding="utf-8")))

    others = {}
    try:
        if again is not None:
            others["with the new weights"] = metrics_of(again.name)
        if (published := steps.published(report, run)) is not None:
            others["in reports/metrics.json"] = published
        if not others:
            why = "reports/metrics.json is of another run, and no network was trained again"
            return Step("metrics", SKIPPED, why)
        checkpoints = scratch.workspace.checkpoints
        checkpoints.mkdir(exist_ok=True)
        (checkpoints / run.name).symlink_to(run.folder)
        return steps.metrics_step(metrics_of(run.name), others)
    except (DataError, ModelError) as error:
        return Step("metrics", UNCHECKED, str(error))
