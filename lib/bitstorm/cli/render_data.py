"""The results of the data commands as lines of text, and the table for all results."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.time import age_text, iso

if TYPE_CHECKING:
    from bitstorm.collect.backfill import Backfilled, Planned
    from bitstorm.collect.gaps import Gap
    from bitstorm.ingest.publish_prices import Ingested
    from bitstorm.pipelines.gaps import Gaps
    from bitstorm.pipelines.retract import Retracted
    from bitstorm.pipelines.status import Status
    from bitstorm.store.maintenance import Commit
    from bitstorm.store.snapshots import Trace


def ingested_lines(result: Ingested, *, rejects: Path) -> list[str]:
    """The batches and their rows, by outcome."""
    if result.idle:
        lines = ["nothing to ingest: every batch is known"]
    else:
        lines = [f"{result.batches} batches: {tally_text(result, rows='rows ')}"]
    if result.replaced:
        lines.append(f"{result.replaced:,} stored rows gave way to better observations")
    lines += [f"warning: {n:,} rows break {rule}" for rule, n in result.warned.items()]
    lines += [f"refused {batch.path.name}: {batch.reason}" for batch in result.refused_batches]
    if result.refused or result.refused_batches:
        lines.append(f"refused rows and batches, and the reasons, are in {rejects}")
    if result.unsettled_batches:
        lines.append(f"{result.unsettled_batches} files changed too recently: ingest them later")
    if result.snapshot is not None:
        lines.append(f"{result.rows:,} rows in snapshot {result.snapshot}")
    return lines


def tally_text(result: Ingested, *, rows: str = "") -> str:
    """The rows read as the sum of their outcomes; `superseded` only where there are such rows."""
    superseded = f"{result.superseded:,} superseded + " if result.superseded else ""
    return (
        f"{result.read:,} {rows}read = {result.accepted:,} accepted + {result.duplicate:,} "
        f"duplicate + {superseded}{result.refused:,} refused"
    )


def status_lines(status: Status, root: Path) -> list[str]:
    """The state of the workspace."""
    from bitstorm.cli.render_score import status_facts

    facts = [("workspace", str(root)), ("holds", status.origin or "nothing yet")]
    for name, found in (("prices", status.prices), ("indicators", status.indicators)):
        text = "none yet"
        if found is not None:
            text = f"{found['rows']:,} rows, {found['first']} to {found['last']}, "
            text += f"{found['files']} files, {found['bytes']:,} bytes, {found['snapshot']}"
        facts.append((name, text))
    facts.append(("newest run", status.run or "none yet"))
    facts += status_facts(status.forecasts)
    waiting = f"{status.waiting_batches} to ingest, {status.unsettled_batches} too young"
    facts.append(("landing", f"{waiting}, {status.refused_batches} refused"))
    if status.age_ms is not None:
        facts.append(("newest price", f"{age_text(status.age_ms)} old"))
        facts.append(("gaps", _gap_count(status.missing, status.expected, status.unasked)))
        facts += [("", _gap_line(gap)) for gap in status.gaps]
        if status.gap_count > len(status.gaps):
            facts.append(("", f"… and {status.gap_count - len(status.gaps)} more: bitstorm gaps"))
    return table(facts)


def gaps_lines(found: Gaps) -> list[str]:
    """The totals, then a line for each gap, oldest first."""
    if found.first_ms is None or found.until_ms is None:
        return ["there are no prices yet, so nothing is expected: collect, backfill or import"]
    facts = [
        ("expected", f"{found.expected:,} slots of {found.frequency}, {iso(found.first_ms)} to "
         f"{iso(found.until_ms)}"),
        ("present", f"{found.present:,}"),
        ("missing", _gap_count(found.missing, found.expected, found.unasked)),
        ("newest price", "none" if found.age_ms is None else f"{age_text(found.age_ms)} old"),
    ]  # fmt: skip
    rows = [("after", "up to", "missing", "state", "last request", "next request")]
    for gap in found.gaps:
        asked, following = ("" if t is None else _second(t) for t in (gap.asked_ms, gap.next_ms))
        span = iso(gap.start_ms), iso(gap.end_ms), f"{gap.missing:,}"
        rows.append((*span, _STATES[gap.state], asked, following))
    return table(facts) + (table(rows, heading=True, whole=True) if found.gaps else [])


_STATES = {
    "open": "not fetched yet",
    "silent": "no price yet",
    "empty": "confirmed empty",
    "refused": "refused or retracted",
    "unreachable": "no source has it",
}


def _gap_count(missing: int, expected: int, unasked: int) -> str:
    if not missing:
        return f"none: all {expected:,} slots have a price"
    advice = " (bitstorm backfill --gaps)" if unasked else ""
    return f"{missing:,} of {expected:,} slots, {unasked:,} of them not fetched yet{advice}"


def _gap_line(gap: Gap) -> str:
    return f"{iso(gap.start_ms)} to {iso(gap.end_ms)}: {gap.missing:,}, {_STATES[gap.state]}"


def _second(timestamp_ms: int) -> str:
    """The time, rounded up to a second: a request then is late enough."""
    return iso(-(-timestamp_ms // 1000) * 1000)


def history_lines(commits: Sequence[Commit]) -> list[str]:
    """One line a commit, newest first."""
    if not commits:
        return ["nothing has been published yet"]
    lines = []
    for c in commits:
        batches = ", ".join(c.batches[:2]) + (" …" if len(c.batches) > 2 else "")
        facts = f"{c.data_set:<10}  {c.snapshot}  {c.created_at[:19]}Z  {c.operation:<10}"
        # Never cut or wrapped, so that a user can copy the ID.
        lines.append(f"{facts}  {c.rows:>11,} rows  {c.reason or batches}".rstrip())
    return lines


def trace_lines(found: Trace) -> list[str]:
    """The batch and the line of a row."""
    return [
        f"{iso(found.timestamp)} in snapshot {found.snapshot}: line {found.line} of "
        f"{found.name or 'a batch'}, SHA-256 {found.batch}"
    ]


def retracted_lines(result: Retracted) -> list[str]:
    """What a retraction changed."""
    lines = [
        f"{result.name}: {result.removed:,} rows removed, {result.restored:,} of them replaced by "
        f"other observations; {result.rows:,} rows in snapshot {result.snapshot}"
    ]
    if result.absent_batches:
        lines.append(
            f"{result.absent_batches} ingested batches are no longer in landing/: their "
            "observations cannot replace removed rows"
        )
    return lines


def planned_lines(plan: Planned) -> list[str]:
    """The requests and the cost of a backfill."""
    if not plan.slices:
        return _silence_lines(plan, idle="nothing is missing: no call needed")
    rows = [("from", "to", "points expected")]
    rows += [(iso(s.from_ms), iso(s.to_ms), f"{s.points:,}") for s in plan.slices]
    return [
        *table(rows, heading=True),
        f"{count_text(len(plan.slices), 'slice')}: {count_text(plan.calls, 'call')}, about "
        f"{plan.points:,} points; nothing was fetched",
        *_silence_lines(plan),
    ]


def _silence_lines(found: Planned | Backfilled, *, idle: str = "") -> list[str]:
    """The hours that stay missing for now (or `idle`), and the limit of the plan."""
    lines = [idle] if idle and not found.silent else []
    if found.silent and found.next_ms is not None:
        lines.append(
            f"{count_text(found.silent, 'hour')} without a price: the next request is from "
            f"{_second(found.next_ms)} on"
        )
    if found.clamped:
        limit = "prices begin there"
        if found.wanted.start > GENESIS_MS:
            limit = "keyless and demo plans reach no older history (source.plan=pro does)"
        lines.append(f"the history begins at {iso(found.wanted.start)}: {limit}")
    return lines


def backfilled_lines(result: Backfilled) -> list[str]:
    """The prices and the cost of a backfill."""
    if result.idle:
        return _silence_lines(result, idle="nothing is missing: no call made")
    return [
        f"{count_text(result.points, 'point')} in {count_text(result.slices, 'slice')}, "
        f"{count_text(result.empty, 'hour')} confirmed empty; "
        f"{count_text(result.calls, 'call')}: {iso(result.wanted.start)} to "
        f"{iso(result.wanted.end)}",
        *_silence_lines(result),
    ]


_WIDTH = 100


def count_text(count: int, thing: str) -> str:
    """`1 call`, `2,000 calls`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def source_text(label: str) -> str:
    """The source of a workspace in words."""
    kind, _, detail = label.partition(":")
    return f"SIMULATED market, seed {detail}" if kind == "simulated" else label


def table(
    rows: Sequence[Sequence[str]], *, heading: bool = False, whole: bool = False
) -> list[str]:
    """Aligned columns; the first row is the heading, if any. Long cells wrap inside their column,
    but not with `whole`, so that a user can copy IDs and prices."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = box.SIMPLE_HEAD if heading else None
    drawn = Table(box=lines, show_header=heading, pad_edge=heading or not whole)
    for place, title in enumerate(rows[0]):
        drawn.add_column(
            title if heading else "",
            justify="right" if heading and place else "left",
            no_wrap=whole or not place,
        )
    for row in rows[1:] if heading else rows:
        drawn.add_row(*map(Text, row))
    stream = StringIO()
    Console(file=stream, width=100_000 if whole else _WIDTH, color_system=None).print(drawn)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
