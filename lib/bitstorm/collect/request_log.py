"""What the source has been asked for, beyond what the batches themselves can say.

`landing/.served.json` keeps for each origin two sets of spans: `spans`, for which the source has
answered for good, and `filled`, the hours for which an answer had a point. An hour of the first
that is not in the second is confirmed empty, whether or not the answer left a batch. An hour of
both counts as served only while its point is still there, in a batch or in the data set: so a batch
that is removed before it is ingested is asked for again. Losing the file costs calls, not points.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.core import durable_io
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import Span, merged, minus, overlap

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
