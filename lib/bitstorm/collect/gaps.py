"""The slots of a regular grid, with and without an observation, and what the source has answered.

A slot is named by its end t and holds the observations of (t - step, t], as in the indicators'
grid; as a span it is written [t - step, t).

`landing/.served.json` keeps two sets of spans for each origin: `spans`, for which the source has
given its final answer, and `filled`, the hours for which an answer had a point. An hour of the
first that is not in the second is confirmed empty, whether or not the answer left a batch. An hour
of both counts as served only while its point is still there, in a batch or in the data set: a batch
that is removed before it is ingested is fetched again. Losing the file costs calls, not points."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitstorm.core import durable_io
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import Span, length, merged, minus, overlap, whole

# open         not fetched yet
# empty        asked for, and the source has nothing there: never asked again
# refused      a batch had an observation that the data set does not have: refused or retracted
# unreachable  no source has it: older than the plan of the key reaches, or the source is a file
State = Literal["open", "empty", "refused", "unreachable"]


@dataclass(frozen=True)
class Gap:
    """`missing` slots in a row, all in one state: nothing is observed after `start_ms` and up to
    `end_ms` (Unix ms UTC, both on the grid)."""

    start_ms: int
    end_ms: int
    missing: int
    state: State


def occupied(stamps: Any, step: int) -> list[Span]:
    """The slots that the stamps (Unix ms, any order, any integers or an array) lie in, merged."""
    import numpy as np

    ends = np.unique(-(-np.asarray(stamps, dtype=np.int64) // step))
    if not len(ends):
        return []
    breaks = np.flatnonzero(np.diff(ends) > 1)
    firsts = ends[np.concatenate(([0], breaks + 1))]
    lasts = ends[np.concatenate((breaks, [len(ends) - 1]))]
    return [
        Span((first - 1) * step, last * step)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]


def gaps(
    expected: Span,
    present: Iterable[Span],
    *,
    settled: Sequence[Span],
    had: Sequence[Span],
    reach_ms: int | None,
    step: int,
) -> list[Gap]:
    """The missing slots of `expected`, a gap for each run of one state, oldest first.

    `expected` and `present` are of whole slots. `settled` is what the source has answered for good,
    `had` the slots for which a batch had an observation, `reach_ms` from when on the source can be
    asked (Unix ms), None where no source has it.
    """
    missing = minus([expected], present)
    answered = overlap(missing, whole(settled, step=step))
    refused = overlap(answered, had)
    rest = minus(missing, answered)
    askable = [] if reach_ms is None else [Span(-(-reach_ms // step) * step, expected.end)]
    kinds: tuple[tuple[State, list[Span]], ...] = (
        ("refused", refused),
        ("empty", minus(answered, refused)),
        ("unreachable", minus(rest, askable)),
        ("open", overlap(rest, askable)),
    )
    found = [
        Gap(span.start, span.end, (span.end - span.start) // step, state)
        for state, spans in kinds
        for span in spans
    ]
    return sorted(found, key=lambda gap: gap.start_ms)


def count(spans: Iterable[Span], step: int) -> int:
    """How many slots the spans of whole slots hold."""
    return length(merged(spans)) // step


_NAME = ".served.json"
_FORMAT = 1


@dataclass(frozen=True)
class Served:
    """Merged spans in Unix ms, oldest first; `filled` are whole hours."""

    spans: tuple[Span, ...] = ()
    filled: tuple[Span, ...] = ()

    def settled(self, present: Iterable[Span]) -> list[Span]:
        """What need not be asked again, given the hours that have an observation now."""
        return merged(
            [*minus(self.spans, self.filled), *overlap(self.spans, present)],
        )


def read_served(landing: Path, origin: Origin) -> Served:
    """What was served of the origin; nothing where the record is missing or unreadable."""
    return _served(_content(landing / _NAME), origin)


def note_served(
    landing: Path, origin: Origin, *, spans: Iterable[Span], filled: Iterable[Span]
) -> None:
    """Add to the record: all of it or nothing, even when two runs do so at once."""
    path = landing / _NAME
    landing.mkdir(parents=True, exist_ok=True)
    with _alone(landing):
        content = _content(path)
        before = _served(content, origin)
        content[str(origin)] = {
            "spans": merged([*before.spans, *spans]),
            "filled": merged([*before.filled, *filled]),
        }
        text = json.dumps({"format": _FORMAT, "origins": content}, separators=(",", ":"))
        durable_io.replace(path, text.encode())


def _content(path: Path) -> dict[str, Any]:
    """The record's origins. What cannot be read is as if it were not there, and is replaced."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return {}
    origins = record.get("origins")
    return origins if isinstance(origins, dict) else {}


def _served(content: dict[str, Any], origin: Origin) -> Served:
    try:
        entry = content[str(origin)]
        spans, filled = (
            tuple(merged(Span(int(a), int(b)) for a, b in entry[name]))
            for name in ("spans", "filled")
        )
    except (KeyError, TypeError, ValueError):
        return Served()
    return Served(spans, filled)


@contextmanager
def _alone(landing: Path) -> Iterator[None]:
    """The lock goes with the process that holds it, however that ends."""
    with (landing / f"{_NAME}.lock").open("a") as stream:
        durable_io.lock(stream.fileno())
        yield
