"""A foreign CSV as text: lines, header, cells. Nothing in here knows what a price is."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bitstorm.errors import BatchError

_DELIMITERS = (",", ";", "\t")


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


def header_of(lines: Iterator[str], file: Path) -> tuple[str, int, tuple[str, ...]]:
    """Delimiter, lines before the header, names: the header is the first line that has columns."""
    for skipped, line in enumerate(islice(lines, 10)):
        if "\0" in line or "\ufffd" in line:
            raise BatchError(f"{file.name} is not UTF-8 text; save it as CSV in UTF-8")
        delimiter = max(_DELIMITERS, key=line.count)
        if line.count(delimiter):
            header = tuple(name.strip() for name in _split(line, delimiter))
            repeated = [name for name, count in Counter(header).items() if count > 1 and name]
            if repeated:
                raise BatchError(f"{file.name} has the column {repeated[0]!r} more than once")
            return delimiter, skipped, header
    raise BatchError(
        f"{file.name} has no header with at least two columns in its first lines; expected a CSV "
        "with a time and a price"
    )


def records(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank: one record a line, as in our own batches.

    Line by line, so that a stray quote costs its own row and not all that follow.
    """
    for line in lines:
        if line.strip():
            yield _split(line, delimiter)


def _split(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
