"""Blocks kept on disk between runs: one folder a recipe, in a private folder of the workspace.

A folder is written under a temporary name and renamed when it is whole and synced, so a name is a
whole one. Who reads any holds the cache's shared lock, who removes some the exclusive one, without
waiting for it: the kernel frees both when their holder dies, however it dies.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.core import durable_io

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
