"""Cells of foreign files: times of any form, and numbers with separators and currency signs."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal
from zoneinfo import ZoneInfo

from bitstorm.core.schema import SECONDS_BELOW
from bitstorm.core.time import iso

# `date` is text of a pattern, `excel` are the day numbers of spreadsheets.
Unit = Literal["s", "ms", "us", "ns", "iso", "date", "excel"]

UNIT_WORDS: Mapping[Unit, str] = MappingProxyType(
    {
        "s": "Unix seconds",
        "ms": "Unix milliseconds",
        "us": "Unix microseconds",
        "ns": "Unix nanoseconds",
        "iso": "ISO-8601",
        "date": "dates",
        "excel": "serial dates of Excel, days since 1899-12-30",
    }
)

_NUMBER = re.compile(r"\d{1,19}(\.\d*)?", re.ASCII)
# 2007-11 to 2099-11. As Unix seconds they are the first day of 1970.
_EXCEL = re.compile(r"(39[4-9]\d\d|[4-6]\d{4}|7[0-2]\d{3})(?:[.,](\d*))?", re.ASCII)
_EXCEL_ZERO = datetime(1899, 12, 30)
# 20240213, with 1530 or 153045 behind it: no Unix time since 2009 has this size.
_DIGITS_DATE = re.compile(r"20\d{6}(\d{4}|\d{6})?", re.ASCII)
# 2/13/24 and 13-Feb-24; 1 PM and 11-AM.
_SHORT_YEAR = re.compile(
    r"(?<!\d)(\d{1,2}([./ -])(?:\d{1,2}|[a-z]{3})\2)(\d\d)(?!\d|:)", re.IGNORECASE
)
_HALF_DAY = re.compile(r"([ -]?)[AP]M$", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 6 to 9986: a day more or less stays inside what datetime can be.
_FIRST_MS, _LAST_MS = -62_000_000_000_000, 253_000_000_000_000


@dataclass(frozen=True)
class StampForm:
    """The form of a file's stamps. With `by_size` the size of each number gives its unit. A time
    without an offset is one of `zone`, of UTC without. `pattern`, in the directives of `strptime`,
    belongs to the unit `date`."""

    unit: Unit
    by_size: bool = False
    zone: ZoneInfo | None = None
    pattern: str = ""

    def moment(self, text: str) -> int | None:
        """Unix ms of a stamp, cut to whole milliseconds; None when it is not of this form, or when
        the clock of the zone skips or repeats that time."""
        if self.unit in ("iso", "date", "excel"):
            return self._moment_of_date(text)
        if not _NUMBER.fullmatch(text):
            return None
        whole, _, fraction = text.partition(".")
        value = int(whole)
        unit = _unit_by_size(value) if self.by_size else self.unit
        if unit == "ns":
            stamp = value // 1_000_000
        elif unit == "us":
            stamp = value // 1000
        elif unit == "ms":
            stamp = value
        else:
            stamp = value * 1000 + int(fraction[:3].ljust(3, "0") or 0)
        return stamp if stamp < _LAST_MS else None

    @property
    def words(self) -> str:
        """The form as the user reads it."""
        return f"dates of the form {self.pattern}" if self.pattern else UNIT_WORDS[self.unit]

    def raw_text(self, text: str) -> str:
        """An unreadable stamp; with a remark where ingest could read it, in another unit or
        unshifted."""
        if not text.startswith(tuple("0123456789+-.")):
            return text
        if self.zone is not None and replace(self, zone=None).moment(text) is not None:
            return f"{text} (the clock of {self.zone.key} shows this never or twice)"
        return f"{text} (not {self.words})"

    def _moment_of_date(self, text: str) -> int | None:
        if self.unit == "iso":
            moment = _parsed_iso(text)
        elif self.unit == "date":
            moment = parsed_date(text, self.pattern)
        else:
            moment = _parsed_excel(text)
        if moment is None:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self.zone or UTC)
            # The zone's clock shows this time never or twice.
            if moment.utcoffset() != moment.replace(fold=1).utcoffset():
                return None
        stamp = (moment - _EPOCH) // timedelta(milliseconds=1)
        return stamp if _FIRST_MS < stamp < _LAST_MS else None


def _unit_by_size(value: int) -> Unit:
    """The unit of a number by its size: in files of many years it changes."""
    if value < SECONDS_BELOW:
        return "s"
    return "ms" if value < 10**14 else "us" if value < 10**17 else "ns"


def _parsed_iso(text: str) -> datetime | None:
    if text.isdigit():
        return None
    if text.endswith((" UTC", " GMT")):
        text = text[:-4] + "Z"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _parsed_excel(text: str) -> datetime | None:
    match = _EXCEL.fullmatch(text)
    if match is None:
        return None
    # Five decimals show a second. Fewer show a minute, so that the hours come out whole.
    step = 1 if len(match[2] or "") >= 5 else 60
    steps = round(float(text.replace(",", ".")) * 86_400 / step)
    return _EXCEL_ZERO + timedelta(seconds=steps * step)


def parsed_date(text: str, pattern: str) -> datetime | None:
    """The moment of a date of this `strptime` pattern, naive without a zone in it; None else."""
    try:
        moment = datetime.strptime(text, pattern)
    except (ValueError, re.error):
        return None
    if text.isdigit() and moment.strftime(pattern) != text:
        return None  # strptime takes 2024111 for a date, with one digit for the month or the day
    named = re.search(r"(UTC|GMT|(?<=\d)Z)\b", text, re.IGNORECASE)
    if "%Z" in pattern and not named:
        return None  # strptime would take the machine's own zone for UTC
    return moment.replace(tzinfo=UTC) if named and moment.tzinfo is None else moment


def stamp_text(stamp_ms: int) -> str:
    """A batch's text of a stamp: an integer, or ISO-8601 where an integer would read as seconds."""
    return str(stamp_ms) if stamp_ms >= SECONDS_BELOW else iso(stamp_ms)


def guessed_stamps(texts: Sequence[str]) -> tuple[Unit | None, tuple[str, ...]]:
    """The unit of most of these stamps, None when no stamp is readable; for `date` its patterns,
    more than one where day and month can be exchanged."""
    votes: Counter[Unit] = Counter()
    dated = []
    for text in texts:
        if _EXCEL.fullmatch(text):
            votes["excel"] += 1
        elif _NUMBER.fullmatch(text) and not _DIGITS_DATE.fullmatch(text):
            votes[_unit_by_size(int(text.partition(".")[0]))] += 1
        else:
            votes["iso"] += _parsed_iso(text) is not None
            dated.append(text)
    patterns = _patterns_of(dated) if votes["iso"] < len(dated) else {}
    best = max(patterns, key=lambda pattern: len(patterns[pattern]), default="")
    if sum(text in patterns.get(best, ()) for text in dated) > max(votes.values(), default=0):
        # Another order of day, month and year that reads what the best one does not, or as much.
        rivals = [p for p in patterns if _fields(p) == _fields(best) and p != best]
        rivals = [p for p in rivals if not patterns[p] < patterns[best]]
        return "date", (best, *(p for p in rivals if p.replace("%B", "%b") != best))
    return votes.most_common(1)[0][0] if any(votes.values()) else None, ()


def _fields(pattern: str) -> str:
    return re.sub("%[dmbByY]", "%", pattern)


def _patterns_of(texts: Sequence[str]) -> dict[str, set[str]]:
    """The `strptime` patterns that these dates can have, with the texts that each one reads."""
    from pandas.tseries.api import guess_datetime_format

    found: dict[str, set[str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of either order
        for text in dict.fromkeys(texts):
            # pandas knows no year of two digits, and an hour with AM only in front of a minute.
            long_year = _SHORT_YEAR.sub(r"\g<1>20\g<3>", text)
            half = _HALF_DAY.search(text)
            bare = _HALF_DAY.sub("", long_year)
            for day_first in (False, True)[: 1 if text[:4].isdigit() else 2]:
                pattern = guess_datetime_format(bare, dayfirst=day_first) or ""
                if half:
                    pattern = pattern.replace("%H", "%I") + f"{half[1]}%p"
                found[pattern.replace("%Y", "%y") if long_year != text else pattern] = set()
            short = _SHORT_YEAR.match(text)
            if short and short[0][:2].isdigit():
                found[f"%y{short[2]}%m{short[2]}%d" + pattern[8:]] = set()
    years = range(2009, datetime.now(UTC).year + 1)
    for pattern, read in found.items():
        # The abbreviation of a zone other than UTC would be read as UTC.
        words = set(re.findall("[A-Z]+", re.sub("%.", " ", pattern), re.IGNORECASE))
        for text in set(texts) if "%d" in pattern and words <= {"T", "Z", "UTC", "GMT"} else ():
            moment = parsed_date(text, pattern)
            if moment is not None and moment.year in years:
                read.add(text)
    return found


Decimal = Literal[".", ","]

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIGNS = "$€£¥₿"
# All groups of a number have the same separator.
_GROUPED = {
    ".": re.compile(r"([+-]?)(\d{1,3}(?:([,'’ \u00a0\u202f])\d{3})(?:\3\d{3})*)(?:\.(\d+))?"),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:([.'’ \u00a0\u202f])\d{3})(?:\3\d{3})*|\d+)(?:,(\d+))?"),
}
_NO_DIGIT = re.compile(r"\D")
_SPACED = re.compile(r"(?<=\d)['’ \u00a0\u202f](?=\d{3})")
_SURELY_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}")
_SURELY_POINT = re.compile(r"\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}")
_EITHER = re.compile(r"\d{1,3},\d{3}")


def number_text(text: str, decimal: Decimal) -> str:
    """A batch's text of a number: digits and a point. Any other text stays unchanged, with a remark
    where ingest could read it as another number."""
    bare = _unsigned(text)
    if decimal == "." and _PLAIN.fullmatch(bare):
        return bare
    match = _GROUPED[decimal].fullmatch(bare)
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
    bare = [_SPACED.sub("", _unsigned(text)).lstrip("+-") for text in texts]
    comma = any(_SURELY_COMMA.fullmatch(text) for text in bare)
    point = any(_SURELY_POINT.fullmatch(text) for text in bare)
    if comma and not point:
        return ",", False
    return ".", comma or (not point and any(_EITHER.fullmatch(text) for text in bare))


def _unsigned(text: str) -> str:
    return text.strip(_SIGNS).strip()
