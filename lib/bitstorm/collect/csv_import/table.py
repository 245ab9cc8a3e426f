"""A foreign CSV as text: lines, header, cells. Nothing in here knows what a price is."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bitstorm.core.errors import BatchError

_DELIMITERS = (",", ";", "\t", "|")
# How far down a header may stand, and how many rows are looked at to tell it from a banner.
_MOST_ABOVE = 20
_FOLLOWING = 5
_VALUE = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?", re.ASCII)


def lines_of(file: Path) -> Generator[str, None, None]:
    """The lines of the file, decompressed when it is gzip; its faults as BatchError.

    Close it when it is not read to its end.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        # Bytes that are no UTF-8 become a mark that no number has, in their own cell alone.
        form: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
        with gzip.open(file, "rt", **form) if packed else file.open(**form) as stream:
            yield from stream
    except FileNotFoundError:
        raise BatchError(f"there is no file {file}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BatchError(
            f"{file.name} cannot be decompressed ({error}); is it complete? Nothing was imported"
        ) from None
    except OSError as error:
        raise BatchError(f"{file} cannot be read ({error.strerror or error})") from None


@dataclass(frozen=True)
class Head:
    """How a file begins. Without a header of its own (`headed`) its columns are named 1, 2, 3 …;
    `rows_at` is the place of the first row among the file's lines, `skipped` lines are above."""

    delimiter: str
    skipped: int
    header: tuple[str, ...]
    headed: bool

    @property
    def rows_at(self) -> int:
        return self.skipped + int(self.headed)


def head_of(lines: Sequence[str], file: Path, *, delimiter: str | None = None) -> Head:
    """The beginning of a file, from its first lines.

    The header is the first line, but for comments, with as many columns as one of those that
    follow: a banner may hold a comma too. Raises BatchError where there is none.
    """
    fallback: Head | None = None
    for place, line in enumerate(lines[:_MOST_ABOVE]):
        if "\0" in line or "\ufffd" in line:
            raise BatchError(f"{file.name} is not UTF-8 text; save it as CSV in UTF-8")
        mark = delimiter or max(_DELIMITERS, key=line.count)
        if is_comment(line) or not line.count(mark):
            continue
        cells = tuple(name.strip() for name in _split(line, mark))
        headed = not all(map(_is_value, cells))
        header = cells if headed else tuple(str(n) for n in range(1, len(cells) + 1))
        found = Head(mark, place, header, headed)
        fallback = fallback or found
        following = records(islice(lines, place + 1, place + 1 + _FOLLOWING), mark)
        if any(len(row) == len(cells) for row in following):
            return _without_repeats(found, file)
    if fallback is not None:
        return _without_repeats(fallback, file)
    raise BatchError(
        f"{file.name} has no header with at least two columns in its first lines; expected a CSV "
        "with a time and a price"
    )


def records(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank or a comment: one record a line, as in our batches.

    Line by line, so that a stray quote costs its own row and not all that follow.
    """
    for line in lines:
        if line[:1] != "#" and line.strip():
            yield _split(line, delimiter)


def is_comment(line: str) -> bool:
    return line[:1] == "#"


def _without_repeats(head: Head, file: Path) -> Head:
    repeated = [name for name, count in Counter(head.header).items() if count > 1 and name]
    if repeated:
        raise BatchError(f"{file.name} has the column {repeated[0]!r} more than once")
    return head


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or a date, which no column is called."""
    return bool(_VALUE.fullmatch(cell.strip('"')))


def _split(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
