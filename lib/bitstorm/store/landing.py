"""CSV batches that wait in `landing/`: which are ready, and their lines in Spark.

A batch is known by the hash of its content, not by its name. Its header is read here, on the
driver; its rows only ever by Spark.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import BatchError
from bitstorm.core.schema import CSV_ALIASES, CSV_COLUMNS, CSV_REQUIRED
from bitstorm.core.sidecar import Sidecar, read_sidecar, sidecar_path
from bitstorm.core.workspace import file_url

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SUFFIXES = (".csv", ".csv.gz")
# A header of the contract has at most five names; a file without a line end is no CSV.
_HEADER_BYTES = 64 * 1024
_PIECE = 1 << 20
_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True)
class Batch:
    """One readable batch. `columns` are the contract's names in the file's order.

    `seen_ms` is when its content was first known to exist: `fetched_at` of its sidecar, else the
    file's modification time (Unix milliseconds, UTC); no row can be later than that. `numeric`:
    its rows are known to have neither a letter nor a NUL.
    """

    path: Path
    sha256: str
    columns: tuple[str, ...]
    sidecar: Sidecar | None
    seen_ms: int
    numeric: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def staged_name(self) -> str:
        suffix = ".csv.gz" if self.path.name.endswith(".gz") else ".csv"
        return f"{self.sha256[:32]}{suffix}"


@dataclass(frozen=True)
class Refused:
    """A batch that is refused as a whole, with the rule it broke."""

    path: Path
    sha256: str
    rule: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """What lies in the landing folder: to take, refused, too young, and already known."""

    ready: tuple[Batch, ...]
    refused: tuple[Refused, ...]
    unsettled: tuple[Path, ...]
    known: tuple[Path, ...]


def survey(
    landing: Path,
    *,
    known: Mapping[str, object],
    settle_seconds: float,
    now_ms: int,
    cache: Path | None = None,
) -> Survey:
    """Look at every `.csv` and `.csv.gz`; `known` holds the hashes that were taken before.

    A file without a sidecar is left alone until its modification time is older than
    `settle_seconds`: somebody may still be writing it. Of equal contents one is taken. `cache` is
    a file that remembers the hashes of known batches by inode, size and times, so that a long
    history in the folder is not read again each time; without it everything is hashed.
    """
    remembered = _remembered(cache)
    seen: dict[str, str] = {}
    ready: dict[str, Batch] = {}
    refused: list[Refused] = []
    unsettled: list[Path] = []
    repeated: list[Path] = []
    paths = sorted(landing.iterdir()) if landing.is_dir() else []
    for path in paths:
        if not path.name.endswith(SUFFIXES) or path.name.startswith(".") or not path.is_file():
            continue
        modified_ms = path.stat().st_mtime_ns // 1_000_000
        alone = not sidecar_path(path).exists()
        if alone and now_ms - modified_ms < settle_seconds * 1000:
            unsettled.append(path)
            continue
        mark = _fingerprint(path)
        digest, numeric = remembered.get(mark), False
        if digest is None:
            digest, numeric = _read_through(path)
        if digest in known:
            seen[mark] = digest
        if digest in known or digest in ready:
            repeated.append(path)
            continue
        try:
            ready[digest] = replace(_open_batch(path, digest, modified_ms), numeric=numeric)
        except BatchError as error:
            refused.append(Refused(path, digest, error.rule, str(error)))
    if cache is not None and seen != remembered:
        cache.parent.mkdir(parents=True, exist_ok=True)
        durable_io.replace(cache, json.dumps(seen).encode())
    return Survey(tuple(ready.values()), tuple(refused), tuple(unsettled), tuple(repeated))


def _read_through(path: Path) -> tuple[str, bool]:
    """SHA-256 of the content, and whether it is `numeric`: asked of whole pieces at once, it costs
    a tenth of asking each line."""
    digest = hashlib.sha256()
    numeric, header = not path.name.endswith(".gz"), True
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            if not numeric:
                continue
            start = 0
            if header:
                ended = _LINE_END.search(piece)
                if ended is None:
                    continue
                header, start = False, ended.start()
            data = np.frombuffer(piece, np.uint8, offset=start)
            numeric = not ((data > ord("9")).any() or (data == 0).any())
    return digest.hexdigest(), numeric and not header


def _fingerprint(path: Path) -> str:
    """What a file cannot keep when its content is changed: inode, size, both times."""
    s = path.stat()
    return f"{path.name}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}"


def _remembered(cache: Path | None) -> dict[str, str]:
    """Hashes by fingerprint. Only of batches that were ingested: what is new is always read."""
    try:
        content = json.loads(cache.read_bytes()) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _open_batch(path: Path, digest: str, modified_ms: int) -> Batch:
    sidecar = read_sidecar(path)
    if sidecar is not None and sidecar.sha256 != digest:
        raise BatchError(
            f"its SHA-256 is {digest[:12]}…, the sidecar says {sidecar.sha256[:12]}…: the file was "
            "changed or cut after it was written; collect it again",
            rule="sidecar_hash",
        )
    columns = contract_columns(_header_line(path))
    seen = modified_ms if sidecar is None else sidecar.fetched_at
    return Batch(path, digest, columns, sidecar, seen)


def contract_columns(header: str) -> tuple[str, ...]:
    """The contract's column names in the order of a header line.

    Raises BatchError for a missing required, a repeated or an unknown column.
    """
    names = [name.strip().strip('"').strip() for name in header.split(",")]
    columns = [CSV_ALIASES.get(name, name) for name in names]
    unknown = [name for name in columns if name not in CSV_COLUMNS]
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    missing = [name for name in CSV_REQUIRED if name not in columns]
    expected = f"expected {', '.join(CSV_REQUIRED)} and any of {', '.join(CSV_COLUMNS[2:])}"
    if unknown:
        shown = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise BatchError(f"unknown column {shown}; {expected}", rule="columns_known")
    if repeated:
        raise BatchError(f"column {', '.join(repeated)} is repeated", rule="columns_unique")
    if missing:
        raise BatchError(
            f"there is no column {', '.join(missing)}; {expected}", rule="columns_present"
        )
    return tuple(columns)


def _header_line(path: Path) -> str:
    packed = path.name.endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
            # A cut archive would stop Spark in the middle of the good batches.
            while packed and stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise BatchError(f"it cannot be read ({error})", rule="batch_readable") from None
    if not start.removeprefix(b"\xef\xbb\xbf"):
        raise BatchError("it is empty; expected a header line", rule="batch_readable")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:256]:
        raise BatchError("it is not UTF-8 (UTF-16?); save it as UTF-8", rule="batch_utf8")
    first = start.removeprefix(b"\xef\xbb\xbf").splitlines()[0]
    try:
        return first.decode("utf-8")
    except UnicodeDecodeError:
        raise BatchError("its header is not UTF-8; save it as UTF-8", rule="batch_utf8") from None


@contextmanager
def staged(batches: Sequence[Batch], folder: Path) -> Iterator[Path]:
    """The batches as links named by their hash in `folder`, which is removed afterwards.

    Spark then meets no glob characters or hidden names, and a batch that is replaced or removed
    while the job runs is still the one that was hashed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for batch in batches:
            target = folder / batch.staged_name
            try:
                os.link(batch.path, target)
            except OSError:
                shutil.copyfile(batch.path, target)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_lines(spark: SparkSession, folder: Path) -> tuple[DataFrame, dict[int, str]]:
    """Every line of the staged files: `file` (a number), `block` (the first byte of the chunk that
    Spark reads at once), `ordinal` (ascending by one inside a chunk) and `text`; and the file's
    name by its number."""
    from pyspark.sql import functions as F

    files = spark.read.text(file_url(folder))
    # The name itself, or the metadata columns, would be copied into each row.
    lines = files.select(
        F.xxhash64(F.input_file_name()).alias("file"),
        F.input_file_block_start().alias("block"),
        F.monotonically_increasing_id().alias("ordinal"),
        F.col("value").alias("text"),
    )
    urls = F.split(F.lit("\n".join(files.inputFiles())), "\n")
    numbers = spark.range(0, 1, 1, 1).select(F.explode(urls).alias("url"))
    names = {
        row["number"]: row["url"].rpartition("/")[2]
        for row in numbers.select("url", F.xxhash64("url").alias("number")).collect()
    }
    return lines, names
