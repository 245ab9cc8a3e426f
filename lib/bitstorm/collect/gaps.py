"""The slots of a regular grid with and without an observation, and the record of served spans.

A slot has the name of its end t and holds the observations of (t - step, t], as in the indicators'
grid; as a span it is [t - step, t).

`landing/.served.json` keeps two sets of spans for each origin: `spans`, for which the source gave
its final answer, and `filled`, the hours with a point in an answer. An hour in the first and not in
the second is confirmed empty, with or without a batch. An hour in both counts as served only while
its point is still in a batch or in the data set: a batch that is removed before its ingest is
fetched again. Losing the file costs calls, not points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bitstorm.core import durable_io
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import Span, length, merged, minus, overlap, whole

# open         not fetched yet
# empty        fetched, and the source has nothing there: not fetched again
# refused      a batch had an observation that the data set lacks: refused or retracted
# unreachable  no source has it: older than the key's plan reaches, or the source is a file
State = Literal["open", "empty", "refused", "unreachable"]


@dataclass(frozen=True)
class Gap:
    """`missing` slots in a row, all in one state: no observation after `start_ms` and up to
    `end_ms` (Unix ms UTC, both on the grid)."""

    start_ms: int
    end_ms: int
    missing: int
    state: State


def occupied(stamps: Any, step: int) -> list[Span]:
    """The slots with a stamp (Unix ms, any order, any integers or an array), merged."""
    import numpy as np

    ends = np.unique(-(-np.asarray(stamps, dtype=np.int64) // step))
    runs = np.split(ends, np.flatnonzero(np.diff(ends) > 1) + 1)
    return [Span((int(run[0]) - 1) * step, int(run[-1]) * step) for run in runs if len(run)]


def gaps(
    expected: Span,
    present: Iterable[Span],
    *,
    final: Sequence[Span],
    had: Sequence[Span],
    reach_ms: int | None,
    step: int,
) -> list[Gap]:
    """The missing slots of `expected`, a gap for each run of one state, oldest first.

    `expected` and `present` are whole slots. `final` are the spans with a final answer, `had` the
    slots with an observation in a batch. The source has history from `reach_ms` (Unix ms) on; None
    where no source has any.
    """
    missing = minus([expected], present)
    answered = overlap(missing, whole(final, step=step))
    refused = overlap(answered, had)
    rest = minus(missing, answered)
    reachable = [] if reach_ms is None else [Span(-(-reach_ms // step) * step, expected.end)]
    kinds: tuple[tuple[State, list[Span]], ...] = (
        ("refused", refused),
        ("empty", minus(answered, refused)),
        ("unreachable", minus(rest, reachable)),
        ("open", overlap(rest, reachable)),
    )
    found = [
        Gap(span.start, span.end, (span.end - span.start) // step, state)
        for state, spans in kinds
        for span in spans
    ]
    return sorted(found, key=lambda gap: gap.start_ms)


def count(spans: Iterable[Span], step: int) -> int:
    """The number of slots in spans of whole slots."""
    return length(merged(spans)) // step


_NAME = ".served.json"


class Served(BaseModel):
    """Merged spans in Unix ms, oldest first; `filled` are whole hours."""

    model_config = ConfigDict(frozen=True)

    spans: tuple[Span, ...]
    filled: tuple[Span, ...]

    def final(self, present: Iterable[Span]) -> list[Span]:
        """The spans not to fetch again; `present` are the hours with an observation now."""
        return merged([*minus(self.spans, self.filled), *overlap(self.spans, present)])


class _Record(BaseModel):
    """The file; `origins` goes by the text of the origin."""

    format: Literal[1] = 1
    origins: dict[str, Served] = {}


_NOTHING = Served(spans=(), filled=())


def read_served(landing: Path, origin: Origin) -> Served:
    """The origin's served spans; none where the record is missing or unreadable."""
    return _read(landing / _NAME).origins.get(str(origin), _NOTHING)


def note_served(
    landing: Path, origin: Origin, *, spans: Iterable[Span], filled: Iterable[Span]
) -> None:
    """Add to the record: all of it or nothing, even when two runs do so at once."""
    landing.mkdir(parents=True, exist_ok=True)
    with durable_io.file_lock(landing / f"{_NAME}.lock"):
        record = _read(landing / _NAME)
        before = record.origins.get(str(origin), _NOTHING)
        record.origins[str(origin)] = Served(
            spans=tuple(merged([*before.spans, *spans])),
            filled=tuple(merged([*before.filled, *filled])),
        )
        durable_io.replace(landing / _NAME, record.model_dump_json().encode())


def _read(path: Path) -> _Record:
    """The record; an unreadable one counts as missing and is replaced."""
    try:
        return _Record.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return _Record()
