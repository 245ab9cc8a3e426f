"""A foreign CSV as text: lines, header, cells."""

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
# The header is in the first lines; some rows after it tell it from a banner.
_MOST_ABOVE = 20
_FOLLOWING = 5
_VALUE = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?", re.ASCII)


def lines_of(file: Path) -> Generator[str, None, None]:
    """The lines of a plain or gzip file; close the generator when lines are left.

    Raises BatchError for a file that cannot be read or decompressed.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        # Bytes outside UTF-8 become a mark that no number has, in their own cell alone.
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
    """The beginning of a file. Without a header of its own (`headed`) its columns are 1, 2, 3 …;
    `skipped` lines are above, `rows_at` is the place of the first row among the file's lines."""

    delimiter: str
    skipped: int
    header: tuple[str, ...]
    headed: bool

    @property
    def rows_at(self) -> int:
        return self.skipped + int(self.headed)

    def cells(self, rows: Iterable[Sequence[str]], name: str) -> list[str]:
        """The stripped cells of one column."""
        place = self.header.index(name)
        return [row[place].strip() for row in rows]


def head_of(lines: Sequence[str], file: Path, *, delimiter: str | None = None) -> Head:
    """The beginning of a file, from its first lines.

    The header is the first line, comments aside, with as many columns as one of the next lines: a
    banner can hold a comma too. Raises BatchError where there is none.
    """
    candidates: list[Head] = []
    for place, line in enumerate(lines[:_MOST_ABOVE]):
        if "\0" in line or "\ufffd" in line:
            raise BatchError(f"{file.name} is not UTF-8 text; save it as CSV in UTF-8")
        mark = delimiter or max(_DELIMITERS, key=line.count)
        if line.startswith("#") or mark not in line:
            continue
        cells = tuple(name.strip() for name in _split(line, mark))
        headed = not all(map(_is_value, cells))
        header = cells if headed else tuple(str(n) for n in range(1, len(cells) + 1))
        candidates.append(Head(mark, place, header, headed))
        following = records(islice(lines, place + 1, place + 1 + _FOLLOWING), mark)
        if any(len(row) == len(cells) for row in following):
            candidates = candidates[-1:]
            break
    if not candidates:
        raise BatchError(
            f"{file.name} has no header with at least two columns in its first lines; expected a "
            "CSV with a time and a price"
        )
    head = candidates[0]
    repeated = [name for name, count in Counter(head.header).items() if count > 1 and name]
    if repeated:
        raise BatchError(f"{file.name} has the column {repeated[0]!r} more than once")
    return head


def records(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank or a comment.

    One record a line, as in our batches: a stray quote costs its own row, not all that follow.
    """
    for line in lines:
        if not line.startswith("#") and line.strip():
            yield _split(line, delimiter)


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or a date; no column has such a name."""
    return bool(_VALUE.fullmatch(cell.strip('"')))


def _split(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
