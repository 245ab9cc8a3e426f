"""What earlier answers said: which spans of a history are final, and which hours had no price.

Two places hold it. The sidecar of a backfill's batch states the spans that its answer made final.
The record `landing/.served.json` keeps for each origin:

- `spans`: final, another request brings nothing new;
- `filled`: the hours with a point in an answer. They count as final only while the point is still
  in a batch or in the data set: a batch that is removed before its ingest is fetched again;
- `silences`: the hours without a price in an answer, and when they were requested;
- `reopened`: what `backfill --again` requests anew, whatever an older batch states.

Losing the file costs calls, not points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bitstorm.collect import batches
from bitstorm.collect.gaps import Silence, occupied
from bitstorm.core import durable_io
from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.sidecar import Origin, Sidecar
from bitstorm.core.time import DAY_MS, HOUR_MS, Span, merged, minus, overlap

ENDPOINT = "/coins/{id}/market_chart/range"
# Free plans reach 365 days back; the exact second is not known, so a day is left.
FREE_DAYS = 364

_NAME = ".served.json"


class Served(BaseModel):
    """Spans in Unix ms, disjoint, oldest first; all but `spans` are whole hours."""

    model_config = ConfigDict(frozen=True)

    spans: tuple[Span, ...]
    filled: tuple[Span, ...]
    silences: tuple[Silence, ...] = ()
    reopened: tuple[Span, ...] = ()

    def empty(self) -> list[Span]:
        """The spans that are confirmed empty."""
        confirmed = [one.span for one in self.silences if one.confirmed]
        return merged([*minus(self.spans, self.filled), *confirmed])

    def lacking(self, span: Span) -> list[Span]:
        """The hours in this span without a price in the last answer, and not confirmed."""
        return overlap([span], [one.span for one in self.silences if not one.confirmed])

    def within(self, spans: Sequence[Span]) -> list[Silence]:
        """The silences in these spans."""
        return [part for one in self.silences for part in one.within(spans)]

    def final(self, present: Iterable[Span]) -> list[Span]:
        """The spans not to fetch again; `present` are the hours with an observation now."""
        return merged([*self.empty(), *overlap(self.spans, present)])

    def with_points(self, spans: Iterable[Span], filled: Sequence[Span]) -> Served:
        """With final `spans`, and the hours that had a point in their answer."""
        spans = merged([*self.spans, *spans])
        return Served(
            spans=tuple(spans),
            filled=tuple(merged([*self.filled, *filled])),
            silences=_without(self.silences, filled),
            reopened=tuple(minus(self.reopened, spans)),
        )

    def with_silence(
        self, hours: Sequence[Span], *, witnessed: Sequence[Span], asked_ms: int
    ) -> Served:
        """With one more answer that had no price in these `hours`; see `Silence`."""
        known = [one.span for one in self.silences]
        new = [Silence(*span, 0, asked_ms) for span in minus(hours, known)]
        found = [*_without(self.silences, hours)]
        for one in (*self.silences, *new):
            first = min(asked_ms, one.witnessed_ms or asked_ms)
            tried = one._replace(tries=one.tries + 1, asked_ms=asked_ms)
            sure = tried._replace(witnessed_ms=first, confirmed=asked_ms - first >= HOUR_MS)
            if one.witnessed_ms is None:
                sure = sure._replace(tries=1)
            found += tried.within(minus(hours, witnessed))
            found += sure.within(overlap(hours, witnessed))
        alike: dict[Silence, list[Span]] = {}
        for one in found:
            alike.setdefault(one._replace(start=0, end=0), []).append(one.span)
        joined = [
            one._replace(start=span.start, end=span.end)
            for one, spans in alike.items()
            for span in merged(spans)
        ]
        return self.model_copy(update={"silences": tuple(sorted(joined, key=lambda s: s.start))})

    def without(self, spans: Sequence[Span]) -> Served:
        """As if no answer was known for these spans of whole hours.

        Written before the first request, so that a plain backfill goes on where this is killed.
        """
        return Served(
            spans=tuple(minus(self.spans, spans)),
            filled=tuple(minus(self.filled, spans)),
            silences=_without(self.silences, spans),
            reopened=tuple(merged([*self.reopened, *spans])),
        )


def _without(silences: Iterable[Silence], spans: Iterable[Span]) -> tuple[Silence, ...]:
    return tuple(part for one in silences for part in one.within(minus([one.span], spans)))


class _Record(BaseModel):
    """The file; `origins` goes by the text of the origin."""

    format: Literal[1] = 1
    origins: dict[str, Served] = {}


_NOTHING = Served(spans=(), filled=())


def read_served(landing: Path, origin: Origin) -> Served:
    """The origin's record; an empty one where the file is missing or unreadable."""
    return _read(landing / _NAME).origins.get(str(origin), _NOTHING)


def change_served(landing: Path, origin: Origin, change: Callable[[Served], Served]) -> Served:
    """Write the changed record: all of it or nothing, even when two runs do so at once."""
    landing.mkdir(parents=True, exist_ok=True)
    with durable_io.file_lock(landing / f"{_NAME}.lock"):
        record = _read(landing / _NAME)
        made = change(record.origins.get(str(origin), _NOTHING))
        record.origins[str(origin)] = made
        durable_io.replace(landing / _NAME, record.model_dump_json().encode())
    return made


def _read(path: Path) -> _Record:
    """The record; an unreadable one counts as missing and is replaced."""
    try:
        return _Record.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return _Record()


def final_spans(
    record: Served,
    landed: Iterable[tuple[Path, Sidecar]],
    *,
    known: Sequence[Span],
    trust_known: bool = False,
) -> list[Span]:
    """The spans of the origin's history with a final answer: another request brings nothing new.

    `record` is the origin's (`read_served`), `landed` its batches (`batches_of`), `known` the hours
    in the data set. With `trust_known` those hours count as answered, except where a fetch touched
    them while they were too young: there another point can come.
    """
    history = history_of(landed)
    stated = [span for _, sidecar in history for span in _served_spans(sidecar)]
    served = minus(stated, record.reopened)
    present = [*known, *slots_of(history, step=HOUR_MS)]
    trusted: list[Span] = []
    if trust_known:
        # Up to the end of the hour: its rest lay in the future then.
        young = [
            Span(start, -(-end // HOUR_MS) * HOUR_MS)
            for _, sidecar in history
            for start, end in _spans(sidecar, "young_ms")
        ]
        trusted = minus(known, [*young, *record.reopened])
    return merged([*served, *record.final(present), *trusted])


def slots_of(landed: Iterable[tuple[Path, Sidecar]], *, step: int) -> list[Span]:
    """The slots of `step` ms with an observation in these batches."""
    stamps: set[int] = set()
    for path, sidecar in landed:
        stamps |= batches.stamps_of(path, sidecar)
    return occupied(sorted(stamps), step)


def reach_ms(plan: str, now: int) -> int:
    """The oldest moment (Unix ms) of a plan's history; a whole hour, so that it stays the same
    within the hour."""
    if plan == "pro":
        return GENESIS_MS
    return -(-(now - FREE_DAYS * DAY_MS) // HOUR_MS) * HOUR_MS


def history_of(landed: Iterable[tuple[Path, Sidecar]]) -> list[tuple[Path, Sidecar]]:
    """The batches of backfills."""
    return [(path, sidecar) for path, sidecar in landed if _served_spans(sidecar)]


def _served_spans(sidecar: Sidecar) -> list[Span]:
    """The spans that a backfill's answer made final; none for other batches."""
    if sidecar.request.get("endpoint") != ENDPOINT:
        return []
    return _spans(sidecar, "served_ms")


def _spans(sidecar: Sidecar, name: str) -> list[Span]:
    try:
        return [Span(int(start), int(end)) for start, end in sidecar.request.get(name, ())]
    except (TypeError, ValueError):
        return []
