"""`report --serve`: the dashboard on loopback, made anew when the workspace changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bitstorm.context import Context
from bitstorm.core.workspace import Workspace
from bitstorm.pipelines.report_page import dashboard_page
from bitstorm.report.serve import Current, Page, Server
from bitstorm.store.manifest import sequences


def serve_report(context: Context, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve on loopback until SIGINT or SIGTERM; `announce` gets the address.

    Raises UsageError where the port is in use, and the errors of `report` where the first page
    cannot be made. A later page that cannot be made leaves the one before in place.
    """

    def make() -> Page:
        made, text = dashboard_page(context, served=True)
        return Page(text.encode(), made)

    current = Current(make, lambda: fingerprint(context.workspace), warn=context.console.warn_once)
    Server(current, port=port).run(announce=announce)


def fingerprint(workspace: Workspace) -> tuple[tuple[str, int], ...]:
    """Changes with each new snapshot, forecast, run and back-test; takes no time."""
    roots = (workspace.prices, workspace.indicators, workspace.forecasts)
    newest = ((str(root), max(sequences(root), default=0)) for root in roots)
    return (*newest, *((str(path), path.stat().st_mtime_ns) for path in _watched(workspace)))


def _watched(workspace: Workspace) -> Iterator[Path]:
    """The files that a commit replaces, and the folders that get a name with it."""
    for name in ("metrics.json", "forecast.csv"):
        yield from workspace.reports.glob(name)
    yield from workspace.checkpoints.glob("*/run.json")
    yield from workspace.backtests.glob("*/backtest.json")
