"""Cells of foreign files: times in any unit, and numbers with separators and currency signs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal
from zoneinfo import ZoneInfo

from bitstorm.core.schema import SECONDS_BELOW
from bitstorm.core.time import iso

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


@dataclass(frozen=True)
class StampForm:
    """The form of a file's stamps. With `by_size` the size of each number gives its unit. A time
    without an offset is one of `zone`, of UTC without."""

    unit: Unit
    by_size: bool = False
    zone: ZoneInfo | None = None

    def moment(self, text: str) -> int | None:
        """Unix ms of a stamp, cut to whole milliseconds; None when it is not of this form, or when
        the clock of the zone skips or repeats that time."""
        if self.unit in ("iso", "ampm"):
            return self._moment_of_text(text)
        if not _NUMBER.fullmatch(text):
            return None
        whole, _, fraction = text.partition(".")
        value = int(whole)
        unit = _unit_by_size(value) if self.by_size else self.unit
        if unit == "us":
            stamp = value // 1000
        elif unit == "ms":
            stamp = value
        else:
            stamp = value * 1000 + int(fraction[:3].ljust(3, "0") or 0)
        return stamp if stamp < _NO_TIME_MS else None

    def raw_text(self, text: str) -> str:
        """An unreadable stamp; with a remark where ingest could read it, in another unit or
        unshifted."""
        if not text.startswith(tuple("0123456789+-.")):
            return text
        if self.zone is not None and StampForm(self.unit).moment(text) is not None:
            return f"{text} (the clock of {self.zone.key} shows this never or twice)"
        return f"{text} (not {UNIT_WORDS[self.unit]})"

    def _moment_of_text(self, text: str) -> int | None:
        moment = _parse(text, ampm=self.unit == "ampm")
        if moment is None:
            return None
        if moment.tzinfo is None:
            zone = self.zone or UTC
            first, second = (moment.replace(tzinfo=zone, fold=n).astimezone(UTC) for n in (0, 1))
            # The zone's clock shows this time never or twice.
            if first != second:
                return None
            moment = first
        return (moment - _EPOCH) // timedelta(milliseconds=1)


def _unit_by_size(value: int) -> Unit:
    """The unit of a number by its size: in files of many years it changes."""
    return "s" if value < SECONDS_BELOW else "ms" if value < 10**14 else "us"


def _parse(text: str, *, ampm: bool) -> datetime | None:
    if ampm:
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


def stamp_text(stamp_ms: int) -> str:
    """A batch's text of a stamp: an integer, or ISO-8601 where an integer would read as seconds."""
    return str(stamp_ms) if stamp_ms >= SECONDS_BELOW else iso(stamp_ms)


def guessed_unit(texts: Sequence[str]) -> Unit | None:
    """The unit of most of these stamps, None when no stamp is readable."""
    votes: Counter[Unit] = Counter()
    for text in texts:
        if _NUMBER.fullmatch(text):
            votes[_unit_by_size(int(text.partition(".")[0]))] += 1
        elif StampForm("iso").moment(text) is not None:
            votes["iso"] += 1
        elif StampForm("ampm").moment(text) is not None:
            votes["ampm"] += 1
    return votes.most_common(1)[0][0] if votes else None


Decimal = Literal[".", ","]

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIGNS = "$€£¥₿"
# All groups of a number have the same separator.
_GROUPED = {
    ".": re.compile(r"([+-]?)(\d{1,3}(?:([,'’ \u00a0\u202f])\d{3})(?:\3\d{3})*)(?:\.(\d+))?"),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:([.'’ \u00a0\u202f])\d{3})(?:\3\d{3})*|\d+)(?:,(\d+))?"),
}
_NO_DIGIT = re.compile(r"\D")
_SURELY_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}")
_SURELY_POINT = re.compile(r"\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}")
_EITHER = re.compile(r"\d{1,3},\d{3}")


def number_text(text: str, decimal: Decimal) -> str:
    """A batch's text of a number: digits and a point. Any other text stays unchanged, with a remark
    where ingest could read it as another number."""
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
    """The mark before the fraction in these numbers, and whether it is doubtful.

    `1,234` can have either; a file of such numbers alone counts as having thousands separators.
    """
    bare = [_unsigned(text).lstrip("+-") for text in texts]
    comma = any(_SURELY_COMMA.fullmatch(text) for text in bare)
    point = any(_SURELY_POINT.fullmatch(text) for text in bare)
    if comma and not point:
        return ",", False
    return ".", comma or (not point and any(_EITHER.fullmatch(text) for text in bare))


def _unsigned(text: str) -> str:
    return text.strip(_SIGNS).strip()
