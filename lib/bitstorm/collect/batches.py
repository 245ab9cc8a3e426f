"""CSV batches in `landing/`: a batch is whole or absent, also after a kill.

The order makes it so: write the rows into a hidden file and sync it; link the sidecar to its final
name and sync; link the CSV to its final name, which fails where the name exists and is the commit;
sync the folder.
"""

from __future__ import annotations

import csv
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from bitstorm.collect.csv_import.table import lines_of, records
from bitstorm.core import durable_io
from bitstorm.core.errors import BatchError
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.sidecar import SUFFIX, Origin, Sidecar, read_sidecar, sidecar_path
from bitstorm.core.time import Span

_ENDINGS = (".csv", ".csv.gz")
_LEFTOVER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Observation:
    """The source's values for one moment.

    `timestamp` is the observation's own time, Unix milliseconds UTC. Price, cap and volume are in
    the quote currency; the volume covers the 24 hours before, the change over them is in percent.
    """

    timestamp: int
    price: float
    market_cap: float | None = None
    volume_24h: float | None = None
    price_change_24h: float | None = None


@dataclass(frozen=True)
class Row:
    """One line to write: its time (Unix ms, None where unreadable) and the cells as text."""

    timestamp_ms: int | None
    cells: Sequence[str]


@dataclass(frozen=True)
class SourceInfo:
    """What the sidecar states about the source of a batch; `fetched_at` is Unix ms UTC."""

    origin: Origin
    granularity_ms: int | None
    fetched_at: int
    request: Mapping[str, Any]
    corrections: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Batch:
    """A batch in landing. `new` is False when the same content was there already."""

    path: Path
    sidecar: Sidecar
    new: bool


def batch_name(coin: str, timestamp_ms: int, suffix: str = "") -> str:
    """`bitcoin_prices_20260518_081738.csv`; the suffix stands before the ending."""
    moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    return f"{coin}_prices_{moment:%Y%m%d_%H%M%S}{suffix}.csv"


def observation_rows(observations: Iterable[Observation]) -> Iterator[Row]:
    """Rows of CSV_COLUMNS: the shortest text that is exactly the number, empty for None."""
    for o in observations:
        numbers = (o.price, o.market_cap, o.volume_24h, o.price_change_24h)
        texts = ("" if n is None else repr(float(n)) for n in numbers)
        yield Row(o.timestamp, (str(o.timestamp), *texts))


def write_batch(
    landing: Path,
    rows: Iterable[Row],
    info: SourceInfo,
    *,
    name: str | Callable[[Sidecar], str],
    columns: Sequence[str] = CSV_COLUMNS,
) -> Batch:
    """Write one batch and its sidecar, row by row; makes `landing` if needed.

    `name` can be a function of the finished sidecar. Where a batch with the same bytes has the
    name, that batch is returned; where other bytes have it, `_2`, `_3` … is put before `.csv`.
    """
    landing.mkdir(parents=True, exist_ok=True)
    with _hidden_file(landing) as (draft, stream):
        count, first, last = _write_rows(stream, rows, columns)
        sidecar = Sidecar(
            rows=count,
            sha256=durable_io.file_hash(draft),
            source=info.origin.source,
            coin=info.origin.coin,
            vs_currency=info.origin.vs_currency,
            granularity_ms=info.granularity_ms,
            first_ms=first,
            last_ms=last,
            fetched_at=info.fetched_at,
            request=dict(info.request),
            corrections=[dict(correction) for correction in info.corrections],
        )
        stem = (name if isinstance(name, str) else name(sidecar)).removesuffix(".csv")
        with _hidden_file(landing) as (described, text):
            text.write(sidecar.model_dump_json(indent=2) + "\n")
            _sync(text)
            suffixes = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
            batches = (
                _link_batch(draft, described, sidecar, landing / f"{stem}{suffix}.csv")
                for suffix in suffixes
            )
            return next(batch for batch in batches if batch is not None)


def known_batches(landing: Path) -> Iterator[tuple[Path, Sidecar]]:
    """The batches with a readable sidecar, by name; a file that a person dropped in has none."""
    for path in sorted(landing.iterdir()) if landing.is_dir() else ():
        if path.name.startswith(".") or not path.name.endswith(_ENDINGS):
            continue
        sidecar = _readable_sidecar(path)
        if sidecar is not None:
            yield path, sidecar


def delete_leftovers(landing: Path, *, older_than_seconds: float = _LEFTOVER_SECONDS) -> list[Path]:
    """Delete the leftovers of killed runs: hidden files, and sidecars without a CSV.

    A file younger than `older_than_seconds` stays: a running command may need it. Returns the
    deleted paths.
    """
    deleted = []
    for path in sorted(landing.iterdir()) if landing.is_dir() else ():
        hidden = path.name.startswith(durable_io.TEMPORARY)
        described = path.name.removesuffix(SUFFIX)
        orphan = (
            path.name != described
            and described.endswith(_ENDINGS)
            and not path.with_name(described).exists()
        )
        try:
            if (hidden or orphan) and time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                deleted.append(path)
        except FileNotFoundError:
            continue  # another run deleted it first
    return deleted


def _write_rows(
    stream: TextIO, rows: Iterable[Row], columns: Sequence[str]
) -> tuple[int, int | None, int | None]:
    """Write header and rows, durably; returns the number of rows, their first and last time."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    first: int | None = None
    last: int | None = None
    for row in rows:
        writer.writerow(map(_one_line, row.cells))
        count += 1
        stamp = row.timestamp_ms
        if stamp is not None:
            first = stamp if first is None else min(first, stamp)
            last = stamp if last is None else max(last, stamp)
    _sync(stream)
    return count, first, last


def _link_batch(draft: Path, described: Path, sidecar: Sidecar, target: Path) -> Batch | None:
    """The batch under this name, None when the name belongs to other bytes."""
    beside = sidecar_path(target)
    if target.exists():
        return _existing(target, sidecar)
    linked = True
    try:
        os.link(described, beside)
    except FileExistsError:
        linked = False
        # Another run is between its two links, or was killed there.
        stated = _readable_sidecar(target)
        if stated is None or stated.sha256 != sidecar.sha256:
            return _existing(target, sidecar) if target.exists() else None
        sidecar = stated
    durable_io.sync_folder(target.parent)
    try:
        os.link(draft, target)
    except FileExistsError:
        landed = _existing(target, sidecar)
        if landed is None and linked:
            beside.unlink()  # a person's file has the name; this sidecar does not describe it
        return landed
    if not beside.exists():
        # This run paused between the links, and another run deleted the sidecar as a leftover.
        os.link(described, beside)
    durable_io.sync_folder(target.parent)
    return Batch(target, sidecar, new=True)


def _existing(target: Path, sidecar: Sidecar) -> Batch | None:
    if durable_io.file_hash(target) != sidecar.sha256:
        return None
    return Batch(target, _readable_sidecar(target) or sidecar, new=False)


def _readable_sidecar(target: Path) -> Sidecar | None:
    try:
        return read_sidecar(target)
    except BatchError:
        return None  # ingest reports it


@contextmanager
def _hidden_file(folder: Path) -> Iterator[tuple[Path, TextIO]]:
    """A new hidden file, deleted at the end; its links stay."""
    path = folder / f"{durable_io.TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}"
    with path.open("x", encoding="utf-8", newline="", buffering=1 << 20) as stream:
        try:
            yield path, stream
        finally:
            path.unlink(missing_ok=True)


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines()) if "\n" in cell or "\r" in cell else cell


def _sync(stream: TextIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def batches_of(landing: Path, origin: Origin) -> list[tuple[Path, Sidecar]]:
    """The origin's batches in landing, by name."""
    return [
        (path, sidecar)
        for path, sidecar in known_batches(landing)
        if Origin(sidecar.source, sidecar.coin, sidecar.vs_currency) == origin
    ]


def landed_stamps(batches: Iterable[tuple[Path, Sidecar]], span: Span) -> set[int]:
    """The stamps (Unix ms) of these batches in the span, both ends included."""
    stamps: set[int] = set()
    for path, sidecar in batches:
        first, last = sidecar.first_ms, sidecar.last_ms
        if first is not None and last is not None and first <= span.end and last >= span.start:
            stamps |= stamps_of(path, sidecar)
    return stamps


def stamps_of(path: Path, sidecar: Sidecar) -> set[int]:
    """All readable stamps (Unix ms) of a batch; the sidecar alone has those of two rows."""
    first, last = sidecar.first_ms, sidecar.last_ms
    if first is None or last is None:
        return set()
    if sidecar.rows <= 2:
        return {first, last}
    with closing(lines_of(path)) as lines:
        rows = records(lines, ",")
        place = next(rows).index("timestamp")
        texts = [cells[place] for cells in rows if len(cells) > place]
    # A stamp in another form lies outside the time that the API covers.
    return {int(text) for text in texts if text.isascii() and text.isdigit()}
