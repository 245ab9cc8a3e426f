"""Results of run and runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitstorm.cli.render.table import source_text, table

if TYPE_CHECKING:
    from bitstorm.pipelines.run import Outcome
    from bitstorm.pipelines.runs import Compared, Overview, Shown


def outcome_lines(outcome: Outcome) -> list[str]:
    """The closing table of `run`."""
    ingested, metrics = outcome.ingested, outcome.forecast.metrics
    unit = metrics["vs_currency"].upper()
    model, persistence, band = metrics["model"], metrics["persistence"], metrics["interval"]
    following = metrics["next"]
    facts = [
        ("source", source_text(metrics["source"])),
        (
            "rows",
            f"{ingested.read:,} read = {ingested.accepted:,} accepted + {ingested.duplicate:,} "
            f"duplicate + {ingested.refused:,} refused; {ingested.rows:,} stored",
        ),
        ("span", f"{metrics['span']['first']} to {metrics['span']['last']}"),
        ("snapshot", f"prices {metrics['snapshot']['prices']}"),
        ("", f"indicators {metrics['snapshot']['indicators']}"),
        ("run", metrics["run"]),
        ("next step", _next_step(following, band["level"], unit)),
        ("verdict", metrics["verdict"]),
        ("report", f"{outcome.report.folder}/dashboard.html"),
    ]
    errors = [
        ("", "RMSE " + unit, "MAE " + unit, "RMSE log return", "skill"),
        _error_row("LSTM", model, f"{model['skill']:+.4f}"),
        _error_row("price stays", persistence, "0"),
    ]
    seconds = "  ".join(f"{name} {value:.1f}" for name, value in outcome.seconds.items())
    total = sum(outcome.seconds.values())
    return [
        *table(facts),
        *table(errors, heading=True),
        f"  {total:.1f} s in all: {seconds}",
    ]


def _next_step(following: dict[str, Any], level: float, unit: str) -> str:
    if math.isnan(following["forecast"]):
        return "none: the newest stretch of prices is shorter than the look-back"
    return (
        f"{following['forecast']:,.2f} {unit} at {following['time']}, "
        f"{level:.0%} interval {following['lower']:,.2f} to {following['upper']:,.2f}"
    )


def _error_row(name: str, errors: dict[str, float], skill: str) -> tuple[str, ...]:
    return (
        name,
        f"{errors['rmse_usd']:,.2f}",
        f"{errors['mae_usd']:,.2f}",
        f"{errors['rmse_log_return']:.6f}",
        skill,
    )


def runs_lines(overviews: Sequence[Overview]) -> list[str]:
    """One line a run, newest first."""
    if not overviews:
        return ["there is no training run yet: `bitstorm train` makes one"]
    heading = ("run", "state", "backend", "windows", "epochs", "best", "loss", "time", "indicators")
    lines = table([heading, *[_run_cells(o) for o in overviews]], whole=True)
    return [*lines, *[f"{o.run}: {o.problem}" for o in overviews if o.problem]]


def _run_cells(o: Overview) -> tuple[str, ...]:
    loss = "" if o.best_validation_loss is None else f"{o.best_validation_loss:.4f}"
    return (
        o.run,
        o.state,
        o.backend or "",
        "" if o.windows is None else f"{o.windows:,}",
        "" if o.epochs is None else str(o.epochs),
        "" if o.best_epoch is None else str(o.best_epoch),
        loss,
        "" if o.seconds is None else f"{o.seconds:,.1f} s",
        o.indicators or "",
    )


def run_lines(shown: Shown) -> list[str]:
    """A run's line, its settings and what became of it."""
    record = shown.record
    lines = runs_lines([replace(shown.overview, problem=None)])
    for part in (
        "settings",
        "windows",
        "warm_up",
        "split",
        "fitted",
        "threads",
        "versions",
        "code",
    ):
        values = record.get(part, {})
        if values:
            rows = [(f"  {name}", _plainly(value)) for name, value in values.items()]
            lines += [f"{part}:", *table(rows, whole=True)]
    lines += [
        f"session: {s['started_at']} to {s.get('ended_at', '?')}, after epoch {s['after_epoch']}"
        for s in record.get("sessions", [])
    ]
    return [*lines, *[f"problem: {problem}" for problem in shown.problems]]


def comparison_lines(compared: Compared) -> list[str]:
    """What differs, a line each, the runs beside each other."""
    if not compared.differ:
        return ["these runs have the same settings, data and results"]
    rows = [("", *compared.runs)]
    rows += [(key, *map(_plainly, values)) for key, values in compared.differ.items()]
    return table(rows, whole=True)


def _plainly(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
