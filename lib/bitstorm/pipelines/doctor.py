"""`doctor`: looks at all that a command needs from this machine, without Spark."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bitstorm.collect.coingecko.client import ROOTS, CoinGecko
from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from bitstorm.collect.coingecko.route import reach
from bitstorm.context import Context
from bitstorm.core import doctor as machine
from bitstorm.core.doctor import Check, examine
from bitstorm.core.errors import BitstormError, first_line
from bitstorm.core.results import Result
from bitstorm.spark import doctor as spark
from bitstorm.store import snapshots


@dataclass(frozen=True, repr=False)
class Checkup(Result):
    """What was looked at. `healthy` is false when a check would stop a command."""

    healthy: bool
    checks: tuple[Check, ...]

    def facts(self) -> dict[str, Any]:
        """A line for each check."""
        return {check.name: f"{check.state}: {check}" for check in self.checks}


def doctor(context: Context, *, cluster: bool = False) -> Checkup:
    """Look at Python, Java, Spark's variables, host name, locale, disk, ports, network, workspace.

    Writes nothing that stays, and makes no call to a price source. Starts Spark only with
    `cluster`: then each executor says what it has, and a last check says which commands run there.
    """
    settings = context.settings
    master = settings.spark.master
    looks: dict[str, Callable[[], Check]] = {
        "python": machine.python,
        "java": spark.java_check,
        "spark": lambda: spark.variables(master),
        "host": lambda: spark.host(master),
        "locale": machine.file_names,
        "temporary": spark.temporary,
        "disk": lambda: machine.disk(context.workspace.root),
        "ports": lambda: machine.ports(settings.simulator.port),
        "network": lambda: _network(context),
        "workspace": lambda: _workspace(context),
    }
    checks = tuple(examine(name, look) for name, look in looks.items())
    if cluster:
        checks += _cluster(context)
    return Checkup(all(check.state != "stop" for check in checks), checks)


def _cluster(context: Context) -> tuple[Check, ...]:
    settings, root = context.settings, context.workspace.root
    try:
        with context.spark("doctor") as session:
            return tuple(
                spark.cluster(
                    session,
                    next(path for path in (root, *root.parents) if path.exists()),
                    backend=settings.training.backend,
                    volatility=settings.backtest.volatility,
                )
            )
    except BitstormError as error:
        return (Check("cluster", "stop", first_line(error)),)


def _network(context: Context) -> Check:
    """The way to the price source; a note where the settings need no network."""
    source = context.settings.source
    url = source.base_url or ROOTS[source.plan]
    needed = source.mode == "coingecko"
    if needed:
        with CoinGecko(base_url=url, plan=source.plan, api_key=os.environ.get(KEY_VARIABLE)):
            pass  # a plan without its key, a key that would travel unencrypted
    return reach(url, needed=needed, seconds=source.connect_timeout_seconds)


def _workspace(context: Context) -> Check:
    """Whether the workspace belongs to the source of the settings, and its manifests are whole."""
    workspace = context.workspace
    if workspace.store is None and not workspace.root.exists():
        return Check("workspace", "ok", f"{workspace.root} does not exist yet")
    workspace.check(context.origin())
    found = [
        f"{path.name} {'none' if snapshot is None else snapshot.id}"
        for path in (workspace.prices, workspace.indicators)
        for snapshot in [snapshots.current(path)]
    ]
    return Check("workspace", "ok", f"{workspace.store or workspace.root}: {', '.join(found)}")
