"""Results of commands as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.core.time import duration_ms, duration_text, iso
from bitstorm.report import numbers

if TYPE_CHECKING:
    from bitstorm.collect.backfill import Backfilled
    from bitstorm.collect.gaps import Gap
    from bitstorm.pipelines.collect import Planned
    from bitstorm.pipelines.gaps import Gaps
    from bitstorm.pipelines.history import Commit, Trace
    from bitstorm.pipelines.indicators import Computed
    from bitstorm.pipelines.ingest import Ingested
    from bitstorm.pipelines.lookahead import Change, Looked
    from bitstorm.pipelines.retract import Retracted
    from bitstorm.pipelines.run import Outcome
    from bitstorm.pipelines.runs import Compared, Overview, Shown
    from bitstorm.pipelines.stats import Stats
    from bitstorm.pipelines.status import Status

_WIDTH = 100
_CHANGES = 10


def ingested_lines(result: Ingested, *, rejects: Path) -> list[str]:
    """What became of the batches and their rows."""
    if result.idle:
        lines = ["nothing to ingest: every batch is known"]
    else:
        lines = [
            f"{result.batches} batches: {result.read:,} rows read = {result.accepted:,} accepted "
            f"+ {result.duplicate:,} duplicate + {result.refused:,} refused"
        ]
    if result.replaced:
        lines.append(f"{result.replaced:,} stored rows gave way to better observations")
    lines += [f"warning: {n:,} rows break {rule}" for rule, n in result.warned.items()]
    lines += [
        f"refused {refused.path.name}: {refused.reason}" for refused in result.refused_batches
    ]
    if result.refused or result.refused_batches:
        lines.append(f"what was refused, and why, is in {rejects}")
    if result.unsettled_batches:
        lines.append(f"{result.unsettled_batches} files are still too young to be taken")
    if result.snapshot is not None:
        lines.append(f"{result.rows:,} rows in snapshot {result.snapshot}")
    return lines


def computed_lines(result: Computed) -> list[str]:
    """The indicators that are there now, and how much of them was computed."""
    points = f"{result.rows:,} points in snapshot {result.snapshot}"
    if result.idle:
        return [f"{points}, up to date"]
    return [f"{points}, published: {result.months} months computed, {result.linked} linked"]


def outcome_lines(outcome: Outcome) -> list[str]:
    """The closing table of `run`."""
    ingested, metrics = outcome.ingested, outcome.forecast.metrics
    unit = metrics["vs_currency"].upper()
    model, persistence, band = metrics["model"], metrics["persistence"], metrics["interval"]
    following = metrics["next"]
    facts = [
        ("source", _source(metrics["source"])),
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
        *_table(facts),
        *_table(errors, heading=True),
        f"  {total:.1f} s in all: {seconds}",
    ]


def _next_step(following: dict[str, Any], level: float, unit: str) -> str:
    if math.isnan(following["forecast"]):
        return "none: the newest stretch of prices is shorter than the look-back"
    return (
        f"{following['forecast']:,.2f} {unit} at {following['time']}, "
        f"{level:.0%} interval {following['lower']:,.2f} to {following['upper']:,.2f}"
    )


def stats_lines(result: Stats) -> list[str]:
    """The statistics, the autocorrelations, and the newest bars, oldest first."""
    found, unit = result.statistics, result.vs_currency.upper()
    facts = [
        ("source", _source(result.source)),
        ("snapshot", f"prices {result.prices}"),
        ("", f"indicators {result.indicators}"),
        ("points", f"{_of(found['count'], 'point')} of {result.frequency}, {found['imputed']:,} "
         f"imputed, {_span(found)}"),
        ("log return", f"mean {numbers.small(found['mean'])}, sd {numbers.small(found['sd'])}, "
         f"{numbers.small(found['minimum'])} to {numbers.small(found['maximum'])}, "
         f"{numbers.share(found['positive_share'])} above 0"),
        ("shape", f"skewness {numbers.score(found['skewness'])}, "
         f"excess kurtosis {numbers.score(found['excess_kurtosis'])}"),
        ("volatility", f"{numbers.share(found['annualised_volatility'])} a year"),
        ("drawdown", _drawdown(found)),
    ]  # fmt: skip
    if not result.matching:
        facts.append(
            ("note", "the indicators are of other prices than the bars: run `bitstorm indicators`")
        )
    lags = [("lag", "time", "of returns", "of their sizes", "pairs")]
    step_ms = duration_ms(result.frequency)
    lags += [
        (f"{one['lag']:,}", duration_text(one["lag"] * step_ms), numbers.score(one["of_return"]),
         numbers.score(one["of_absolute"]), f"{one['pairs']:,}")
        for one in found["autocorrelation"]
    ]  # fmt: skip
    lines = [*_table(facts), "autocorrelation", *_table(lags, heading=True)]
    if result.bars:
        table = _table(_bars(result), heading=True, whole=True)
        lines += [f"newest bars of {result.period}, {unit}", *table]
    if result.bars and not result.bars[-1]["complete"]:
        lines.append("the newest bar is not complete: its values may still change")
    if result.rows is not None:
        lines.append(f"{_of(result.rows, 'bar')} → {result.output}")
    return lines


def _bars(result: Stats) -> list[tuple[str, ...]]:
    money = ("open", "high", "low", "close")
    rows: list[tuple[str, ...]] = [("up to", *money, "return", "realised", "count")]
    for bar in result.bars:
        change, realised = bar["log_return"], bar["realised_volatility"]
        rows.append(
            (iso(bar["timestamp"]), *[numbers.amount(bar[name]) for name in money],
             "–" if change is None else f"{change:+.4f}",
             "–" if realised is None else f"{realised:.4f}", f"{bar['count']:,}")
        )  # fmt: skip
    return rows


def _span(found: dict[str, Any]) -> str:
    if found["first_ms"] is None:
        return "none"
    return f"{iso(found['first_ms'])} to {iso(found['last_ms'])}"


def _drawdown(found: dict[str, Any]) -> str:
    if found["trough_ms"] is None:
        return "none"
    return (
        f"{numbers.share(found['largest_drawdown'])} at {iso(found['trough_ms'])}, from the peak "
        f"at {iso(found['peak_ms'])}"
    )


def status_lines(status: Status, root: Path) -> list[str]:
    """The state of a workspace."""
    facts = [("workspace", str(root)), ("holds", status.origin or "nothing yet")]
    for name, found in (("prices", status.prices), ("indicators", status.indicators)):
        text = "none yet"
        if found is not None:
            text = f"{found['rows']:,} rows, {found['first']} to {found['last']}, "
            text += f"{found['files']} files, {found['bytes']:,} bytes, {found['snapshot']}"
        facts.append((name, text))
    facts.append(("newest run", status.run or "none yet"))
    waiting = f"{status.waiting_batches} to ingest, {status.unsettled_batches} too young"
    facts.append(("landing", f"{waiting}, {status.refused_batches} refused"))
    if status.age_ms is not None:
        facts.append(("newest price", f"{duration_text(status.age_ms // 60_000 * 60_000)} old"))
        facts.append(("gaps", _gap_count(status.missing, status.expected, status.unasked)))
        facts += [("", _gap_line(gap)) for gap in status.gaps]
        if status.gap_count > len(status.gaps):
            facts.append(("", f"… and {status.gap_count - len(status.gaps)} more: bitstorm gaps"))
    return _table(facts)


def gaps_lines(found: Gaps) -> list[str]:
    """A line a gap, oldest first, under what they come to."""
    if found.first_ms is None or found.until_ms is None or found.age_ms is None:
        return ["there are no prices yet, so nothing is expected: collect, backfill or import"]
    facts = [
        ("expected", f"{found.expected:,} slots of {found.frequency}, {iso(found.first_ms)} to "
         f"{iso(found.until_ms)}"),
        ("present", f"{found.present:,}"),
        ("missing", _gap_count(found.missing, found.expected, found.unasked)),
        ("newest price", f"{duration_text(found.age_ms // 60_000 * 60_000)} old"),
    ]  # fmt: skip
    rows = [
        (iso(gap.start_ms), iso(gap.end_ms), f"{gap.missing:,}", _STATES[gap.state])
        for gap in found.gaps
    ]
    heading = [("after", "up to", "missing", "state")]
    return _table(facts) + (_table(heading + rows, heading=True) if rows else [])


_STATES = {
    "open": "to be asked for",
    "empty": "confirmed empty",
    "refused": "refused or retracted",
    "unreachable": "nobody to ask",
}


def _gap_count(missing: int, expected: int, unasked: int) -> str:
    if not missing:
        return f"none: all {expected:,} slots have a price"
    advice = " (bitstorm backfill --gaps)" if unasked else ""
    return f"{missing:,} of {expected:,} slots, {unasked:,} of them to be asked for{advice}"


def _gap_line(gap: Gap) -> str:
    return f"{iso(gap.start_ms)} to {iso(gap.end_ms)}: {gap.missing:,}, {_STATES[gap.state]}"


def planned_lines(plan: Planned) -> list[str]:
    """What a backfill would ask for and cost."""
    if not plan.slices:
        return ["nothing is left to ask for: no call would be made"]
    rows = [("from", "to", "points expected")]
    rows += [(iso(s.from_ms), iso(s.to_ms), f"{s.points:,}") for s in plan.slices]
    return [
        *_table(rows, heading=True),
        f"{_of(len(plan.slices), 'slice')}: {_cost(plan.calls, plan.credits)}, about "
        f"{plan.points:,} points; nothing was fetched",
    ]


def _of(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _cost(calls: int, credits: int) -> str:
    return f"{_of(calls, 'call')}, {_of(credits, 'credit')}"


def backfilled_lines(result: Backfilled) -> list[str]:
    """What a backfill brought and cost."""
    if result.idle:
        return ["nothing is left to ask for: no call was made"]
    lines = [
        f"{_of(result.points, 'point')} in {_of(result.slices, 'slice')}, "
        f"{_of(result.empty, 'hour')} without one; "
        f"{_cost(result.calls, result.credits)}: {iso(result.wanted.start)} to "
        f"{iso(result.wanted.end)}"
    ]
    if result.clamped:
        lines.append("the plan of the key reaches no further back than that")
    return lines


def history_lines(commits: Sequence[Commit]) -> list[str]:
    """One line a commit, newest first."""
    if not commits:
        return ["nothing has been published yet"]
    lines = []
    for c in commits:
        batches = ", ".join(c.batches[:2]) + (" …" if len(c.batches) > 2 else "")
        facts = f"{c.data_set:<10}  {c.snapshot}  {c.created_at[:19]}Z  {c.operation:<10}"
        # Nothing is cut or wrapped: an ID that is shown is there to be copied.
        lines.append(f"{facts}  {c.rows:>11,} rows  {c.reason or batches}".rstrip())
    return lines


def runs_lines(overviews: Sequence[Overview]) -> list[str]:
    """One line a run, newest first."""
    if not overviews:
        return ["there is no training run yet: `bitstorm train` makes one"]
    heading = ("run", "state", "backend", "windows", "epochs", "best", "loss", "time", "indicators")
    lines = _table([heading, *[_run_cells(o) for o in overviews]], whole=True)
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
            lines += [f"{part}:", *_table(rows, whole=True)]
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
    return _table(rows, whole=True)


def _plainly(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def trace_lines(found: Trace) -> list[str]:
    """Where a row came from."""
    return [
        f"{iso(found.timestamp)} in snapshot {found.snapshot}: line {found.line} of "
        f"{found.name or 'a batch'}, SHA-256 {found.batch}"
    ]


def retracted_lines(result: Retracted) -> list[str]:
    """What a retraction changed."""
    lines = [
        f"{result.name}: {result.removed:,} rows taken out, at {result.restored:,} of their times "
        f"another observation stands again; {result.rows:,} rows in snapshot {result.snapshot}"
    ]
    if result.absent_batches:
        lines.append(
            f"{result.absent_batches} ingested batches are no longer in landing/: what they said "
            "of these times could not be asked"
        )
    return lines


def lookahead_lines(result: Looked) -> list[str]:
    """What was compared at each cut, and what changed there."""
    lines = [
        f"prices {result.prices}, seed {result.seed}: {result.rows:,} rows of "
        f"{len(result.columns)} columns",
        "each cut once without the prices after it, once with other prices there",
    ]
    rows = [["cut", "where", "rows without", "changed", "rows with others", "changed"]]
    for cut in result.cuts:
        rows.append([iso(cut.time_ms), cut.place])
        for one in (cut.truncated, cut.altered):
            rows[-1] += [f"{one.rows:,}", f"{max(one.changed.values(), default=0):,}"]
    lines += _table(rows, heading=True)
    if result.caught is not None:
        lines.append(
            f"the planted look-ahead was caught at {result.caught} of {len(result.cuts)} cuts"
        )
    if not result.changed:
        inexact = sum(cut.truncated.inexact + cut.altered.inexact for cut in result.cuts)
        others = "every value" if result.caught is None else "every other value"
        near = (
            f"{inexact:,} by no more than {result.relative:g} of it or {result.absolute:g} (of the "
            "price where it is a difference of prices)"
        )
        lines.append(f"{others} is the same" + (f", {near}" if inexact else " to the last bit"))
    lines += [
        f"{iso(change.timestamp)} {_changed(change)} {how} the prices after {iso(cut.time_ms)}"
        for cut in result.cuts
        for how, one in (("without", cut.truncated), ("with other values for", cut.altered))
        for change in one.first
    ][:_CHANGES]
    return lines


def lookahead_failure(result: Looked) -> str:
    """Why the check has failed, as a sentence."""
    if not result.changed:
        return (
            "the planted look-ahead was not caught: no cut had anything after it to look at; take "
            "more cuts (--cuts) or another --seed"
        )
    cuts = [cut for cut in result.cuts if cut.changed & {*result.changed}]
    oldest = min(
        change.timestamp for cut in cuts for change in (*cut.truncated.first, *cut.altered.first)
    )
    columns = ", ".join("whole rows" if name == "timestamp" else name for name in result.changed)
    return (
        f"{columns} changed with what comes after {', '.join(iso(cut.time_ms) for cut in cuts)}, "
        f"first at {iso(oldest)}: nothing may be known before its time; mend how that is made"
    )


def _changed(change: Change) -> str:
    if change.column == "timestamp":
        return "is there only" if change.whole is None else "is not there"
    again, whole = ("null" if text is None else text for text in (change.again, change.whole))
    return f"{change.column} is {again} instead of {whole}"


def _error_row(name: str, errors: dict[str, float], skill: str) -> tuple[str, ...]:
    return (
        name,
        f"{errors['rmse_usd']:,.2f}",
        f"{errors['mae_usd']:,.2f}",
        f"{errors['rmse_log_return']:.6f}",
        skill,
    )


def _source(label: str) -> str:
    kind, _, detail = label.partition(":")
    return f"SIMULATED market, seed {detail}" if kind == "simulated" else label


def _table(
    rows: Sequence[Sequence[str]], *, heading: bool = False, whole: bool = False
) -> list[str]:
    """Aligned columns; long cells wrap inside their own column.

    `whole`: nothing is cut or wrapped, for an ID or a price that is shown is there to be copied.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD if heading else None, show_header=heading, pad_edge=heading or not whole
    )
    body = list(rows)
    columns = body.pop(0) if heading else ("",) * len(body[0])
    for place, column in enumerate(columns):
        table.add_column(
            column, justify="right" if heading and place else "left", no_wrap=whole or not place
        )
    for row in body:
        table.add_row(*[Text(cell) for cell in row])
    stream = StringIO()
    Console(file=stream, width=100_000 if whole else _WIDTH, color_system=None).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
