"""`gaps`: the slots of the grid that should have an observation, and those that have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitstorm.collect import backfill as history
from bitstorm.collect.batches import batches_of
from bitstorm.collect.gaps import Gap, count, gaps
from bitstorm.context import Context
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import HOUR_MS, Span, duration_ms, hull, merged, now_ms, overlap
from bitstorm.store import snapshots
from bitstorm.store.snapshots import stored_slots


@dataclass(frozen=True, repr=False)
class Gaps(Result):
    """The expected slots of `frequency`: from the first observation to now, or to the last row
    where the prices come from a file.

    `first_ms` and `until_ms` bound the expected slots, and `age_ms` is the age of the newest
    observation; all are None before the first observation. `unasked` of the `missing` slots are not
    fetched yet. `gaps` are oldest first. Times are Unix ms UTC.
    """

    frequency: str
    first_ms: int | None
    until_ms: int | None
    expected: int
    present: int
    missing: int
    unasked: int
    age_ms: int | None
    gaps: tuple[Gap, ...]

    @property
    def idle(self) -> bool:
        return not self.missing

    def unasked_spans(self) -> list[Span]:
        """The spans that `backfill --gaps` fetches."""
        return [Span(gap.start_ms, gap.end_ms) for gap in self.gaps if gap.state == "open"]


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
        present = merged([*present, *history.slots_of(waiting, step=step)])
        last_ms = max([t for _, s in waiting if (t := s.last_ms)] + [last_ms or 0]) or None
    now = clock()
    if not present or last_ms is None:
        return Gaps(settings.grid.frequency, None, None, 0, 0, 0, 0, None, ())
    first, last = hull(present)
    from_file = origin.source == "csv"
    expected = Span(first, last if from_file else max(last, now // step * step))
    hours = stored if step == HOUR_MS else stored_slots(snapshot, HOUR_MS)
    found = gaps(
        expected,
        present,
        final=history.final_spans(landing, origin, batches, known=hours),
        had=history.slots_of(batches, step=step),
        reach_ms=None if from_file else history.reach_ms(settings.source.plan, now),
        step=step,
    )
    return Gaps(
        frequency=settings.grid.frequency,
        first_ms=first,
        until_ms=expected.end,
        expected=count([expected], step),
        present=count(overlap([expected], present), step),
        missing=sum(gap.missing for gap in found),
        unasked=sum(gap.missing for gap in found if gap.state == "open"),
        age_ms=now - last_ms,
        gaps=tuple(found),
    )


def known_hours(context: Context, origin: Origin) -> list[Span]:
    """The hours of the newest snapshot; none where the workspace has another origin."""
    if context.workspace.bound_to() not in (None, origin):
        return []
    return stored_slots(snapshots.current(context.workspace.prices), HOUR_MS)
