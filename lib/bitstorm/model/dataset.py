"""The blocks of a series as the rows of the converter's data set, kept in the cache.

A block is one row (see `windowing`), so the data set takes about a float a point, whatever the
look-back; and one serves every part and any scaler.

The cache has one folder a recipe. A folder is written under a temporary name and renamed when it is
whole and synced. A reader holds the cache's shared lock, the sweep takes the exclusive one without
waiting. The kernel frees both when their holder dies.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.third_party_noise import third_party_warnings_hushed
from bitstorm.core.workspace import file_url
from bitstorm.model.windowing import Frame

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter
    from pyspark.sql import DataFrame, SparkSession


# Of the format: another one is another folder of the cache.
FORMAT = 1
BLOCKS_PER_FILE = 32
_PLAIN = re.compile(r"[A-Za-z0-9._/=-]+")


@dataclass(frozen=True)
class Stored:
    """A data set of blocks and petastorm's converter of it; `reused` tells that an earlier run had
    written it."""

    frame: Frame
    converter: SparkDatasetConverter
    folder: Path
    reused: bool

    def columns(self) -> Iterator[dict[str, np.ndarray]]:
        """The blocks' columns, a file at a time, in the order of the converter's files."""
        return (_columns(path, self.frame) for path in _parts(self.folder))


@contextmanager
def stored(
    spark: SparkSession,
    frame: Frame,
    rows: Callable[[], DataFrame],
    *,
    cache: Path,
    source: Mapping[str, Any],
    limit_bytes: int,
) -> Iterator[Stored]:
    """The data set of the blocks that `rows` makes (see `blocks.to_rows`), for the block.

    Kept under `cache` and used again: `source` names all that the points depend on. `rows` is
    asked only where there is none yet. See `cache.held` for what becomes of it.
    """
    recipe = {
        "format": FORMAT,
        "look_back": frame.look_back,
        "horizon": frame.horizon,
        "columns": list(frame.columns),
        # A window over returns alone needs one point more: the counts say so.
        "returns": "log_return" in frame.features,
        "size": frame.size,
        "step_ms": frame.step_ms,
        **source,
    }

    def write(folder: Path) -> dict[str, Any]:
        writer = rows().write.option("parquet.enable.dictionary", "false")
        writer.option("compression", "uncompressed").parquet(file_url(folder))
        return {}

    with (
        held(cache, recipe, write, limit_bytes=limit_bytes) as kept,
        _converter(spark, kept.folder) as converter,
    ):
        yield Stored(frame, converter, kept.folder, kept.reused)


def files_for(points: int, frame: Frame) -> int:
    """How many files the blocks of so many indexes go to."""
    blocks = -(-points // frame.size)
    return max(min(4, blocks), -(-blocks // BLOCKS_PER_FILE))


def _parts(folder: Path) -> list[Path]:
    """The part files, in the order that they are read in."""
    return sorted(folder.glob("*.parquet"))


def _columns(path: Path, frame: Frame) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    columns = {"block": table["block"].to_numpy()}
    for name in ("price", *frame.columns):
        values = table[name].combine_chunks()
        columns[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, frame.length)
    return columns


@contextmanager
def _converter(spark: SparkSession, folder: Path) -> Iterator[SparkDatasetConverter]:
    """Given a DataFrame, the converter would keep plan and folder for the whole process, and
    serve them again when the folder is gone. Given a path it keeps nothing, but insists on the
    setting; and nobody calls its `delete`, which would remove the folder."""
    with third_party_warnings_hushed():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(folder.parent))
    link = None if _PLAIN.fullmatch(str(folder)) else _linked(folder)
    try:
        place = folder if link is None else link / folder.name
        with third_party_warnings_hushed():
            converter = make_spark_converter(file_url(place))
        converter.file_urls[:] = [file_url(place / path.name) for path in _parts(folder)]
        yield converter
    finally:
        if link is not None:
            shutil.rmtree(link, ignore_errors=True)


def _linked(folder: Path) -> Path:
    """A folder with a plain path and a link to this one: the converter looks for its files under
    the quoted form of their path, which is another where it has a space."""
    link = Path(tempfile.mkdtemp(prefix="bitstorm-"))
    (link / folder.name).symlink_to(folder.absolute(), target_is_directory=True)
    return link


# Beside the part files; Spark and petastorm pass over what begins with an underscore.
INDEX = "_index.json"
_LOCK = ".lock"


def key_of(recipe: Mapping[str, Any]) -> str:
    """The folder's name: a hash of all that its content depends on."""
    return durable_io.of_bytes(json.dumps(recipe, sort_keys=True).encode())[:32]


@dataclass(frozen=True)
class Held:
    """A whole folder, there for as long as it is held; `index` is what was recorded of it, and
    `reused` says that an earlier run had written it."""

    folder: Path
    index: dict[str, Any]
    reused: bool


@contextmanager
def held(
    root: Path,
    recipe: Mapping[str, Any],
    write: Callable[[Path], dict[str, Any]],
    *,
    limit_bytes: int,
) -> Iterator[Held]:
    """The recipe's folder under `root`: that of an earlier run, or a new one by `write`.

    `write` makes the folder that it is given and returns what is to be recorded of it. Unless
    another process holds one of the cache's folders, what killed runs left, and what was not used
    for longest beyond `limit_bytes`, is removed first.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = root / key_of(recipe)
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if durable_io.lock(descriptor, wait_seconds=0):
            _sweep(root, limit_bytes=limit_bytes, keep=folder)
        durable_io.lock(descriptor, shared=True)
        index = _recorded(folder)
        reused = index is not None
        if index is None:
            _make(folder, recipe, write)
            index = json.loads((folder / INDEX).read_bytes())
        # The time of the last use.
        os.utime(folder / INDEX)
        yield Held(folder, index, reused)
    finally:
        os.close(descriptor)


def _sweep(root: Path, *, limit_bytes: int, keep: Path) -> None:
    """Remove leftovers, and whole folders but `keep`, the one first whose last use is longest ago,
    until `limit_bytes` are not exceeded."""
    used = {path: _used(path) for path in root.iterdir() if path.name != _LOCK}
    total = sum(size for _, size in used.values())
    for path in sorted(used, key=lambda path: used[path]):
        if path.is_file():  # a lock of an older version
            path.unlink()
        elif path.name.startswith(durable_io.TEMPORARY) or (total > limit_bytes and path != keep):
            # The index first: half a folder must not look like a whole one.
            (path / INDEX).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            total -= used[path][1]


def _used(folder: Path) -> tuple[int, int]:
    """When the folder was last used, and its bytes; the oldest where it has no index."""
    try:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        return (folder / INDEX).stat().st_mtime_ns, sum(sizes)
    except OSError:
        return 0, 0


def _make(folder: Path, recipe: Mapping[str, Any], write: Callable[[Path], dict[str, Any]]) -> None:
    """Write the folder under a temporary name, record its files' hashes, sync, and rename it; of
    two that make the same one at once, the first one's stays."""
    temporary = folder.with_name(f"{durable_io.TEMPORARY}{folder.name}-{secrets.token_hex(4)}")
    try:
        index = write(temporary)
        files = sorted(path for path in temporary.iterdir() if path.suffix == ".parquet")
        hashes = {path.name: durable_io.of_file(path) for path in files}
        record = {"recipe": dict(recipe), "files": hashes, **index}
        (temporary / INDEX).write_text(json.dumps(record), encoding="utf-8")
        durable_io.sync_tree(temporary, [*files, temporary / INDEX])
        if _recorded(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                temporary.rename(folder)
            except OSError:
                if _recorded(folder) is None:
                    raise
            durable_io.sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What is recorded of a folder, None where it is not there or its files are not those."""
    try:
        record: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        if all(
            durable_io.of_file(folder / name) == digest for name, digest in record["files"].items()
        ):
            return record
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    return None
