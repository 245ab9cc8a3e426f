"""Cells of foreign files: times in any unit, and numbers with separators and currency signs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal
from zoneinfo import ZoneInfo

from bitstorm.core.schema import SECONDS_BELOW
from bitstorm.core.time import DAY_MS, iso

# `ampm` is CryptoDataDownload's: 2017-07-01 11-AM.
Unit = Literal["s", "ms", "us", "iso", "ampm"]

UNIT_WORDS: Mapping[Unit, str] = MappingProxyType(
    {
        "s": "Unix seconds",
        "ms": "Unix milliseconds",
        "us": "Unix microseconds",
        "iso": "ISO-8601",
        "ampm": "dates with hours such as 11-AM",
    }
)

_NUMBER = re.compile(r"\d{1,19}(\.\d*)?", re.ASCII)
_AMPM = re.compile(r"(\d{4}-\d\d-\d\d) (0?[1-9]|1[0-2])-([AP]M)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME_MS = 10**15


def milliseconds(text: str, unit: Unit, zone: ZoneInfo | None = None) -> int | None:
    """Unix ms of a stamp (below a millisecond cut off), None when it is none of this unit.

    A date-time without an offset is one of `zone`, of UTC without; None as well where the clock of
    the zone skips or repeats that time.
    """
    if unit in ("iso", "ampm"):
        moment = _moment(text, unit)
        if moment is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC) if zone is None else _in_zone(moment, zone)
        if moment is None:
            return None
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


def unit_by_size(text: str, unit: Unit) -> Unit:
    """The unit of a number by its size: files of many years change it. Else `unit`."""
    if not _NUMBER.fullmatch(text):
        return unit
    value = int(text.partition(".")[0])
    return "s" if value < SECONDS_BELOW else "ms" if value < 10**14 else "us"


def _moment(text: str, unit: Unit) -> datetime | None:
    if unit == "ampm":
        match = _AMPM.fullmatch(text)
        if match is None:
            return None
        hour = int(match[2]) % 12 + (12 if match[3] == "PM" else 0)
        text = f"{match[1]}T{hour:02d}:00"
    elif text.isdigit():
        return None
    elif text.endswith((" UTC", " GMT")):
        text = text[:-4] + "Z"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime | None:
    """The moment when the zone's clock shows this; None when it never or twice does."""
    first, second = (moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first if first == second else None


def written(stamp_ms: int) -> str:
    """The stamp as a batch has it: an integer, or ISO-8601 where that would read as seconds."""
    return str(stamp_ms) if stamp_ms >= SECONDS_BELOW else iso(stamp_ms)


def unread(text: str, unit: Unit, zone: ZoneInfo | None = None) -> str:
    """The raw text; with a remark where ingest might read it, in another unit or unshifted."""
    may_be_read = text[:1].isdigit() or text[:1] in ("+", "-", ".")
    if not may_be_read:
        return text
    if zone is not None and milliseconds(text, unit) is not None:
        return f"{text} (the clock of {zone.key} shows this never or twice)"
    return f"{text} (not {UNIT_WORDS[unit]})"


def guessed_unit(texts: Sequence[str]) -> Unit | None:
    """The unit that most of the stamps look like, None when they look like none."""
    votes: Counter[Unit] = Counter()
    for text in map(str.strip, texts):
        if _NUMBER.fullmatch(text):
            votes[unit_by_size(text, "s")] += 1
        elif milliseconds(text, "iso") is not None:
            votes["iso"] += 1
        elif milliseconds(text, "ampm") is not None:
            votes["ampm"] += 1
    return votes.most_common(1)[0][0] if votes else None


Decimal = Literal[".", ","]

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIGNS = "$€£¥₿"
# The separator between groups is one and the same, whatever it is.
_GROUPED = {
    ".": re.compile(r"([+-]?)(\d{1,3}(?:([,'’ \u00a0\u202f])\d{3})(?:\3\d{3})*)(?:\.(\d+))?"),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:([.'’ \u00a0\u202f])\d{3})(?:\3\d{3})*|\d+)(?:,(\d+))?"),
}
_NO_DIGIT = re.compile(r"\D")
_COMMA_FOR_SURE = re.compile(r"\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}")
_POINT_FOR_SURE = re.compile(r"\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}")
_EITHER = re.compile(r"\d{1,3},\d{3}")


def plain(text: str, decimal: Decimal) -> str:
    """The number as a batch has it: digits and a point. What is no such number stays as it is,
    with a remark where ingest might take it for another one."""
    if decimal == "." and _PLAIN.fullmatch(text):
        return text
    match = _GROUPED[decimal].fullmatch(_unsigned(text))
    if match is not None:
        sign, whole, _, fraction = match.groups()
        return sign + _NO_DIGIT.sub("", whole) + (f".{fraction}" if fraction else "")
    if decimal == "," and _PLAIN.fullmatch(text):
        return f"{text} (no number with a decimal comma)"
    return text


def guessed_decimal(texts: Sequence[str]) -> tuple[Decimal, bool]:
    """The mark before the fraction in these numbers, and whether they leave a doubt about it.

    `1,234` may be either; such numbers alone are taken to have thousands separators.
    """
    bare = [_unsigned(text).lstrip("+-") for text in texts]
    comma = any(_COMMA_FOR_SURE.fullmatch(text) for text in bare)
    point = any(_POINT_FOR_SURE.fullmatch(text) for text in bare)
    if comma and not point:
        return ",", False
    return ".", comma or (not point and any(_EITHER.fullmatch(text) for text in bare))


def _unsigned(text: str) -> str:
    return text.strip(_SIGNS).strip()
