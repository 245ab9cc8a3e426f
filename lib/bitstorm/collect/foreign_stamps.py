"""Time stamps of foreign files: units, and how a batch writes what they say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from bitstorm.instants import DAY_MS, iso
from bitstorm.schema import SECONDS_BELOW

Unit = Literal["s", "ms", "us", "iso"]

UNIT_WORDS: Mapping[Unit, str] = MappingProxyType(
    {
        "s": "Unix seconds",
        "ms": "Unix milliseconds",
        "us": "Unix microseconds",
        "iso": "ISO-8601",
    }
)

_NUMBER = re.compile(r"\d{1,19}(\.\d*)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME_MS = 10**15


def milliseconds(text: str, unit: Unit) -> int | None:
    """Unix ms of a stamp (below a millisecond cut off), None when it is none of this unit."""
    if unit == "iso":
        if text.isdigit():
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
        return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000
    if not _NUMBER.fullmatch(text):
        return None
    whole, _, fraction = text.partition(".")
    value = int(whole)
    if unit == "us":
        stamp = value // 1000
    elif unit == "ms":
        stamp = value
    else:
        stamp = value * 1000 + int(fraction[:3].ljust(3, "0") or 0)
    return stamp if stamp < _NO_TIME_MS else None


def written(stamp_ms: int) -> str:
    """The stamp as a batch has it: an integer, or ISO-8601 where that would read as seconds."""
    return str(stamp_ms) if stamp_ms >= SECONDS_BELOW else iso(stamp_ms)


def unread(text: str, unit: Unit) -> str:
    """The raw text; with a remark where ingest might read it, in another unit or unshifted."""
    may_be_read = text[:1].isdigit() or text[:1] in ("+", "-", ".")
    return f"{text} (not {UNIT_WORDS[unit]})" if may_be_read else text


def guessed_unit(texts: Sequence[str]) -> Unit | None:
    """The unit that most of the stamps look like, None when they look like none."""
    votes: Counter[Unit] = Counter()
    for text in map(str.strip, texts):
        if _NUMBER.fullmatch(text):
            value = int(text.partition(".")[0])
            votes["s" if value < SECONDS_BELOW else "ms" if value < 10**14 else "us"] += 1
        elif milliseconds(text, "iso") is not None:
            votes["iso"] += 1
    return votes.most_common(1)[0][0] if votes else None
