"""A foreign file as text: its container, lines, header, cells."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bitstorm.core.errors import BatchError

_PACKED: Mapping[bytes, Callable[[Any], Any]] = MappingProxyType(
    {
        b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
        b"\xfd7zXZ\0": lzma.LZMAFile,
        b"BZh": bz2.BZ2File,
    }
)
_OTHERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"\xff\xfe": "UTF-16 text, not UTF-8",
        b"\xfe\xff": "UTF-16 text, not UTF-8",
        b"PK\x05\x06": "an empty zip archive",
        b"\x28\xb5\x2f\xfd": "packed by Zstandard",
        b"\x04\x22\x4d\x18": "packed by LZ4",
        b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
        b"Rar!": "a RAR archive",
        b"\xd0\xcf\x11\xe0": "an old Office document, perhaps an Excel workbook (.xls)",
        b"%PDF": "a PDF document",
        b"SQLite format 3": "an SQLite database",
        b"\x89HDF": "an HDF5 file",
        b"ARROW1": "an Arrow (Feather) file",
        b"Obj\x01": "an Avro file",
        b"\x93NUMPY": "a NumPy array",
        b"\x80\x04": "a pickle of Python",
        b"\x80\x05": "a pickle of Python",
        b"version https://git-lfs": "a pointer of Git LFS, without the file's content",
    }
)
_TEXT_OTHERS = (
    (re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<\?xml\b", re.IGNORECASE), "XML"),
    (re.compile(rb"\s*[\[{]\s*[\[{\"]"), "JSON"),
)
_READABLE = "expected CSV or Parquet, plain or packed as .gz, .xz, .bz2, or .zip with one table"
_START = 512
_DELIMITERS = (",", ";", "\t", "|")
_QUOTED = re.compile(r'"[^"]*"')
# Excel's hint above the header.
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
# The header is in the first lines; some rows after it tell it from a banner.
_MOST_ABOVE = 20
_FOLLOWING = 5
_MOST_HEADER_ROWS = 4
_NULLS = {"", "-", "n/a", "na", "nan", "nat", "none", "null"}


def lines_of(file: Path) -> Generator[str, None, None]:
    """The lines of a CSV, and of a Parquet file as if it were one; close the generator when lines
    are left. The first bytes tell the container, not the name.

    Raises BatchError for a file that cannot be read or is neither, with a word about what it is.
    """
    try:
        with ExitStack() as opened:
            stream, start = _unpacked(opened, file)
            if start.startswith(b"PAR1"):
                yield from _parquet_lines(stream)
                return
            start = start.removeprefix(b"\xef\xbb\xbf")
            what = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None)
            what = what or next((what for look, what in _TEXT_OTHERS if look.match(start)), None)
            what = what or ("a tar archive" if start[257:262] == b"ustar" else None)
            if what is not None:
                raise BatchError(f"{file.name} is {what}; {_READABLE}. Save it as CSV in UTF-8")
            # Bytes outside UTF-8 become a mark that no number has, in their own cell alone.
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
            yield from opened.enter_context(text)
    except FileNotFoundError:
        raise BatchError(f"there is no file {file}") from None
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise BatchError(
            f"{file.name} cannot be decompressed ({error}); is it complete? Nothing was imported"
        ) from None
    except OSError as error:
        raise BatchError(f"{file} cannot be read ({error.strerror or error})") from None


def _unpacked(opened: ExitStack, file: Path) -> tuple[Any, bytes]:
    """The content of a file out of its containers, one in another too, and its first bytes."""
    stream: Any = opened.enter_context(file.open("rb"))
    for _ in range(4):
        start = stream.read(_START)
        stream.seek(0)
        opener = next((one for magic, one in _PACKED.items() if start.startswith(magic)), None)
        if start.startswith(b"PK\x03\x04"):
            archive = opened.enter_context(zipfile.ZipFile(stream))
            stream = opened.enter_context(archive.open(_table_in(archive, file.name)))
        elif opener is None:
            return stream, start
        else:
            stream = opened.enter_context(opener(stream))
    raise BatchError(f"{file.name} is packed more than three times; {_READABLE}")


def _table_in(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    files = [m for m in archive.infolist() if not m.is_dir()]
    if {"[Content_Types].xml", "mimetype", "Index/Document.iwa"} & {m.filename for m in files}:
        raise BatchError(
            f"{name} is a spreadsheet or another Office document; {_READABLE}. Save its sheet as "
            "CSV in UTF-8"
        )
    hidden = re.compile(r"(^|/)(\.|__MACOSX/)")
    files = [m for m in files if not hidden.search(m.filename)]
    table = re.compile(r"\.(csv|tsv|parquet)(\.(gz|xz|bz2))?$", re.IGNORECASE)
    tables = [m for m in files if table.search(m.filename)] or files
    if len(tables) != 1:
        shown = ", ".join(m.filename for m in tables[:5]) or "no file"
        raise BatchError(f"{name} holds {shown}; expected one table. Unpack it and import each one")
    if tables[0].flag_bits & 1:
        raise BatchError(f"{name} is encrypted; expected an open archive. Unpack it first")
    return tables[0]


def _parquet_lines(stream: Any) -> Iterator[str]:
    """The rows of a Parquet file as lines of a CSV; nested columns are left out."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    try:
        content = parquet.ParquetFile(stream)
        schema = content.schema_arrow
        places = [n for n, kind in enumerate(schema.types) if not pa.types.is_nested(kind)]
        names = [schema.names[place] for place in places]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(names)
        yield text.getvalue()
        for batch in content.iter_batches():
            columns = [_writable(batch.column(place)) for place in places]
            sink = io.BytesIO()
            table = pa.Table.from_arrays(columns, names)
            arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(include_header=False))
            yield from io.TextIOWrapper(io.BytesIO(sink.getvalue()), "utf-8", newline="")
    except (pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0]
        raise BatchError(f"the Parquet file cannot be read ({cause}); is it complete?") from None


def _writable(column: Any) -> Any:
    """A column of a type that Arrow writes as text; times with a zone in UTC."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _writable(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(pa.timestamp(kind.unit, "UTC"))
    if pa.types.is_floating(kind):
        try:
            return column.cast(pa.int64())  # as text a large float has an exponent
        except pa.ArrowInvalid:
            return column
    return column.cast(pa.string()) if pa.types.is_decimal(kind) else column


@dataclass(frozen=True)
class Head:
    """The beginning of a file. Without a header of its own its columns are 1, 2, 3 …; `header_rows`
    are its rows of names, `skipped` lines are above them."""

    delimiter: str
    skipped: int
    header: tuple[str, ...]
    header_rows: tuple[tuple[str, ...], ...]

    @property
    def headed(self) -> bool:
        return bool(self.header_rows)

    @property
    def rows_at(self) -> int:
        """The place of the first row among the file's lines."""
        return self.skipped + len(self.header_rows)

    def find(self, given: str) -> str | None:
        """The column with this name, in whichever row of names; of `NAME+NAME` both. Else None."""
        if given in self.header:
            return given
        cells = (enumerate(names) for names in self.header_rows)
        found = {place for row in cells for place, name in row if name == given}
        if len(found) == 1:
            return self.header[found.pop()]
        halves = [(self.find(a), self.find(b)) for a, b in _halves(given)]
        return next((f"{a}+{b}" for a, b in halves if {a, b} <= {*self.header}), None)

    def places(self, column: str) -> tuple[int, ...]:
        """Where a column stands, or the two of `NAME+NAME`. Raises BatchError for a repeated one:
        either can be the right one."""
        names: tuple[str, ...] = (column,)
        if column not in self.header:
            names = next(h for h in _halves(column) if set(h) <= set(self.header))
        for name in names:
            if self.header.count(name) > 1:
                raise BatchError(
                    f"the file has the column {name!r} more than once; rename the one to import"
                )
        return tuple(self.header.index(name) for name in names)

    def cells(self, rows: Iterable[Sequence[str]], column: str) -> list[str]:
        """The stripped cells of one column, or of two with a space between."""
        places = self.places(column)
        return [" ".join(row[place].strip() for place in places) for row in rows]


def _halves(text: str) -> list[tuple[str, str]]:
    return [(text[: m.start()], text[m.end() :]) for m in re.finditer(r"(?<=.)\+(?=.)", text)]


def head_of(lines: Sequence[str], file: Path, *, delimiter: str | None = None) -> Head:
    """The beginning of a file, from its first lines.

    The header is the first line, comments aside, with as many columns as one of the next lines: a
    banner can hold a comma too. More rows of names can follow it, such as those of pandas. Raises
    BatchError where there is none.
    """
    candidates: list[Head] = []
    for place, line in enumerate(lines[:_MOST_ABOVE]):
        if "\0" in line or "\ufffd" in line:
            raise BatchError(f"{file.name} is not UTF-8 text; save it as CSV in UTF-8")
        hint = _SEPARATOR.fullmatch(line)
        if hint is not None and not candidates:
            delimiter = delimiter or hint[1]
            continue
        bare = _QUOTED.sub("", line)
        mark = delimiter or max(_DELIMITERS, key=bare.count)
        if line.startswith("#") or mark not in line:
            continue
        cells = _split(line, mark)
        below = lines[place + 1 : place + 1 + max(_FOLLOWING, _MOST_HEADER_ROWS)]
        candidates.append(_head(mark, place, cells, below))
        if any(len(row) == len(cells) for row in records(below[:_FOLLOWING], mark)):
            candidates = candidates[-1:]
            break
    if not candidates:
        raise BatchError(
            f"{file.name} has no header with at least two columns in its first lines; expected a "
            "CSV with a time and a price"
        )
    return candidates[0]


def _head(mark: str, skipped: int, first: Sequence[str], below: Sequence[str]) -> Head:
    first = tuple(name.strip() for name in first)
    if _only_values(first):
        return Head(mark, skipped, tuple(str(n) for n in range(1, len(first) + 1)), ())
    rows = (first, *_more_names(below, mark, len(first)))
    # pandas names its index in a row of its own.
    index = [row for row in rows[1:] if row[0] and not any(row[1:])]
    levels = [row for row in rows if row not in index]
    names = next((row for row in levels if len(set(row)) == len(row)), None)
    names = names or tuple(" ".join(filter(None, column)) for column in zip(*levels, strict=True))
    return Head(mark, skipped, (index[-1][0], *names[1:]) if index else names, rows)


def _more_names(below: Sequence[str], mark: str, width: int) -> list[tuple[str, ...]]:
    """The rows of names between the header and the first row with a value."""
    rows: list[tuple[str, ...]] = []
    for line in below[:_MOST_HEADER_ROWS]:
        cells = tuple(cell.strip() for cell in _split(line, mark))
        empty = all(cell.lower() in _NULLS for cell in cells)
        if line.startswith("#") or len(cells) != width or empty:
            break
        if any(map(_is_value, cells)):
            return rows
        rows.append(cells)
    return []


def records(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank or a comment.

    One record a line, as in our batches: a stray quote costs its own row, not all that follow.
    """
    for line in lines:
        if not line.startswith("#") and line.strip():
            yield _split(line, delimiter)


def _only_values(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(map(_is_value, filled))


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or a date: no name has more digits than letters."""
    return sum(map(str.isdigit, cell)) > sum(map(str.isalpha, cell))


def _split(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
