"""`check-leakage`: nothing that counts as known may change with later points."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitstorm.backtest import leakage
from bitstorm.backtest.known import Setup
from bitstorm.backtest.leakage import ADVICE, Leak
from bitstorm.backtest.plan import Plan, make_plan
from bitstorm.backtest.plants import PLANTS
from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.results import Result
from bitstorm.model import blocks
from bitstorm.model.windowing import Columns

# Enough to see a leak: a leak does not depend on how good the network is.
_NETWORK = {"epochs": 2, "units": 8}


@dataclass(frozen=True, repr=False)
class Checked(Result):
    """`compared` and `unchecked` are as in `leakage.Comparison`. `leaks` has one of each name, in
    the order of the data's way. `passed` means that there is none; with a `plant`, that the first
    is the planted one."""

    passed: bool
    indicators: str
    seed: int
    plant: str | None
    points: int
    folds: int
    cuts: int
    compared: Mapping[str, int]
    unchecked: tuple[str, ...]
    leaks: tuple[Leak, ...]


def check_leakage(
    context: Context,
    *,
    cuts: int = 2,
    seed: int | None = None,
    plant: str | None = None,
    network: bool = False,
) -> Checked:
    """Compute the way from the indicators to a back-test's forecasts once, then for each cut twice:
    without the points after it, and with other points after it.

    `seed` draws the cuts; None draws a seed, too. `plant` is a key of `plants.PLANTS`. `network`
    trains a small network, too. Raises as `make_plan` and `leakage.check`.
    """
    if plant is not None and plant not in PLANTS:
        raise UsageError(f"plant: found {plant!r}, expected one of {', '.join(PLANTS)}")
    seed = secrets.randbelow(2**31) if seed is None else seed
    plan = make_plan(context)
    training = context.settings.training
    if network:
        training = training.model_copy(update=_NETWORK)
        if training.backend == "tensorflow":
            context.load_tensorflow()
    setup = Setup(plan.spec, plan.folds, training, plan.baselines, context.settings.forecast.steps)
    if plant is not None:
        setup = setup.through(PLANTS[plant].way)
    points = _points(plan)
    with context.console.stage("leakage") as say:
        found = leakage.check(points, setup, seed=seed, cuts=cuts, network=network)
        say(f"{found.cuts} cuts with seed {seed}")
    leaks = found.first_leaks()
    names = [leak.name for leak in leaks]
    return Checked(
        passed=not names if plant is None else names[:1] == [PLANTS[plant].leak],
        indicators=plan.snapshot.id,
        seed=seed,
        plant=plant,
        points=len(points["index"]),
        folds=len(plan.folds),
        cuts=found.cuts,
        compared={name: found.compared[name] for name in ADVICE if name in found.compared},
        unchecked=found.unchecked,
        leaks=leaks,
    )


def _points(plan: Plan) -> Columns:
    """The whole series in memory."""
    pieces = [*blocks.arrays(plan.snapshot, plan.spec)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
