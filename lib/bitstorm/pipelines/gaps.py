"""`gaps`: the slots of the grid that should have an observation, and those that have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitstorm.collect import request_log
from bitstorm.collect.batches import batches_of
from bitstorm.collect.gaps import Gap, count, gaps
from bitstorm.context import Context
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import HOUR_MS, Span, duration_ms, merged, now_ms, overlap, widened
from bitstorm.store import snapshots
from bitstorm.store.snapshots import stored_slots


@dataclass(frozen=True, repr=False)
class Gaps(Result):
    """The expected slots of `frequency`: from the first observation, or the first request without a
    price, to now, or to the last row where the prices come from a file.

    `first_ms` and `until_ms` bound the expected slots (None: nothing is expected), `age_ms` is the
    age of the newest observation and `newest_ms` its time (None without one). `unasked` of the
    `missing` slots are not fetched yet. `gaps` are oldest first. Times are Unix ms UTC.
    """

    frequency: str
    first_ms: int | None
    until_ms: int | None
    expected: int
    present: int
    missing: int
    unasked: int
    age_ms: int | None
    newest_ms: int | None
    gaps: tuple[Gap, ...]

    @property
    def idle(self) -> bool:
        return not self.missing

    def wanted_spans(self, *, again: bool = False) -> list[Span]:
        """The spans that `backfill --gaps` fetches, at once or later; with `again` also those that
        are confirmed empty."""
        states = ("open", "silent", "empty") if again else ("open", "silent")
        return [Span(gap.start_ms, gap.end_ms) for gap in self.gaps if gap.state in states]


def find_gaps(context: Context, *, clock: Callable[[], int] = now_ms) -> Gaps:
    """The gaps of the data set plus the batches that wait for ingest, or of the context's snapshot
    alone, where it names one. Reads only times.

    `clock` gives Unix ms. Raises SnapshotMissing, and SnapshotDamaged where a file has changed.
    """
    settings, landing = context.settings, context.workspace.landing
    step = duration_ms(settings.grid.frequency)
    snapshot = snapshots.current(context.workspace.prices, snapshot=context.snapshot)
    origin = context.workspace.bound_to() or context.origin()
    batches = batches_of(landing, origin)
    stored = present = stored_slots(snapshot, step)
    last_ms = None if snapshot is None else snapshot.manifest.last_ms
    if context.snapshot is None:
        ledger = snapshots.read_ledger(snapshot)
        waiting = [one for one in batches if one[1].sha256 not in ledger]
        present = merged([*present, *request_log.slots_of(waiting, step=step)])
        last_ms = max([t for _, s in waiting if (t := s.last_ms)] + [last_ms or 0]) or None
    now, from_file = clock(), origin.source == "csv"
    record = request_log.read_served(landing, origin)
    reach_ms = None if from_file else request_log.reach_ms(settings.source.plan, now)
    # Before the first observation only what a backfill requested is expected.
    lacking = [] if reach_ms is None else record.lacking(Span(reach_ms, now))
    if not present and not lacking:
        return Gaps(settings.grid.frequency, None, None, 0, 0, 0, 0, None, None, ())
    first = min(span.start for span in [*present, *widened(lacking, step=step)])
    last = present[-1].end if present else first
    expected = Span(first, last if from_file else max(last, now // step * step))
    hours = stored if step == HOUR_MS else stored_slots(snapshot, HOUR_MS)
    found = gaps(
        expected,
        present,
        final=request_log.final_spans(record, batches, known=hours),
        had=request_log.slots_of(batches, step=step),
        reach_ms=reach_ms,
        step=step,
        silences=record.silences,
    )
    return Gaps(
        frequency=settings.grid.frequency,
        first_ms=first,
        until_ms=expected.end,
        expected=count([expected], step),
        present=count(overlap([expected], present), step),
        missing=sum(gap.missing for gap in found),
        unasked=sum(gap.missing for gap in found if gap.state == "open"),
        age_ms=None if last_ms is None else now - last_ms,
        newest_ms=last_ms,
        gaps=tuple(found),
    )


def known_hours(context: Context, origin: Origin) -> list[Span]:
    """The hours of the newest snapshot; none where the workspace has another origin."""
    if context.workspace.bound_to() not in (None, origin):
        return []
    return stored_slots(snapshots.current(context.workspace.prices), HOUR_MS)
