"""Blocks kept on disk between runs: one folder a recipe, in a private folder of the workspace.

A folder is written under a temporary name and renamed when it is whole and synced, so a name is a
whole one. Who reads it holds the shared lock of the file beside it, who writes or removes it the
exclusive one: the kernel frees both when their holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm import filesystem

# Beside the part files; Spark and petastorm pass over what begins with an underscore.
INDEX = "_index.json"
_LOCK = ".lock"


def key_of(recipe: Mapping[str, Any]) -> str:
    """The folder's name: a hash of all that its content depends on."""
    text = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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

    `write` makes the folder that it is given and returns what is to be recorded of it. First of
    all, what killed runs left and what was not used for longest beyond `limit_bytes` is removed;
    what a living process holds stays. A run that is writing the same folder is waited for.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = key_of(recipe)
    sweep(root, limit_bytes=limit_bytes, keep=key)
    reused = True
    while True:
        with _opened(root / f"{key}{_LOCK}") as descriptor:
            index = _reserved(root, key, descriptor)
            if index is None:
                # One that is not whole, or not there: written by one of those who want it. When
                # the lock is turned into another it is nobody's for a moment: looked at anew.
                filesystem.lock(descriptor)
                if _same(descriptor, root / f"{key}{_LOCK}") and _recorded(root / key) is None:
                    _made(root, key, recipe, write)
                    reused = False
                index = _reserved(root, key, descriptor)
            if index is not None:
                # The time of the last use.
                os.utime(root / key / INDEX)
                yield Held(root / key, index, reused)
                return


def _reserved(root: Path, key: str, descriptor: int) -> dict[str, Any] | None:
    """Take the shared lock; the folder's record where it is whole."""
    filesystem.lock(descriptor, shared=True)
    # Who has removed the lock's file held a lock that means nothing to those who come after.
    return _recorded(root / key) if _same(descriptor, root / f"{key}{_LOCK}") else None


def sweep(root: Path, *, limit_bytes: int, keep: str = "") -> None:
    """Remove what killed runs left, and whole folders but `keep` from the one on whose last use is
    longest ago, until `limit_bytes` are not exceeded. What a living process holds stays."""
    folders: dict[str, list[Path]] = {}
    for path in root.iterdir():
        name = path.name.removeprefix(filesystem.TEMPORARY).partition("-")[0]
        folders.setdefault(name.removesuffix(_LOCK), []).append(path)
    used = {key: _used(root / key) for key in folders if (root / key).is_dir()}
    total = sum(size for _, size in used.values())
    for key in sorted(folders, key=lambda key: used.get(key, (0, 0))):
        excess = total > limit_bytes and key != keep
        leftovers = [p for p in folders[key] if p.name.startswith(filesystem.TEMPORARY)]
        if not (excess or leftovers or key not in used):
            continue
        with _opened(root / f"{key}{_LOCK}") as descriptor:
            if not filesystem.lock(descriptor, wait=False):
                continue
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)
            if excess and key in used:
                # Under another name first: half a folder must not look like a whole one.
                doomed = root / f"{filesystem.TEMPORARY}{key}-{secrets.token_hex(4)}"
                with contextlib.suppress(FileNotFoundError):
                    (root / key).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                total -= used[key][1]
            if not (root / key).exists():
                (root / f"{key}{_LOCK}").unlink(missing_ok=True)


def _used(folder: Path) -> tuple[int, int]:
    """When the folder was last used, and its bytes; the oldest where it has no index."""
    try:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        return (folder / INDEX).stat().st_mtime_ns, sum(sizes)
    except OSError:
        return 0, 0


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _same(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _made(
    root: Path, key: str, recipe: Mapping[str, Any], write: Callable[[Path], dict[str, Any]]
) -> None:
    """Write the folder under a temporary name, record its files' hashes, sync, and rename it."""
    shutil.rmtree(root / key, ignore_errors=True)
    temporary = root / f"{filesystem.TEMPORARY}{key}-{secrets.token_hex(4)}"
    try:
        index = write(temporary)
        files = sorted(path for path in temporary.iterdir() if path.suffix == ".parquet")
        record = {
            "recipe": dict(recipe),
            "files": {path.name: _hash(path) for path in files},
            **index,
        }
        (temporary / INDEX).write_text(json.dumps(record), encoding="utf-8")
        filesystem.sync_tree(temporary, [*files, temporary / INDEX])
        temporary.rename(root / key)
        filesystem.sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What is recorded of a folder, None where it is not there or its files are not those."""
    try:
        record: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        if all(_hash(folder / name) == digest for name, digest in record["files"].items()):
            return record
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
