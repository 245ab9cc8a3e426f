"""Where the files of a data set lie: a local folder, or a store of objects.

The store of snapshots needs six operations, and from two of them a promise: a file appears whole,
and of two that create one name one fails. That is the commit. Links, renames, locks and folders
are not needed. Commands read and write local files: those of a store of objects are copied to a
local folder, the mirror; of a local folder they are the files themselves.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeAlias

from bitstorm.core import durable_io
from bitstorm.core.errors import SnapshotDamaged

_THREADS = 8


class Entry(NamedTuple):
    """A file: name, bytes, last change (Unix seconds). On a disk it may have several names, its
    `links`, and one `inode`."""

    name: str
    size: int
    changed_s: float
    links: int = 1
    inode: tuple[int, int] | None = None

    @property
    def file(self) -> object:
        """The same for all names of one file."""
        return self.inode or self.name


@dataclass(frozen=True)
class FileSystem(ABC):
    """The files of one data set; a name is relative, with `/` between its parts.

    The six abstract operations are all that a store of objects has to have. They raise
    FileNotFoundError for a missing file, and OSError or StoreError where they fail. `folder` is the
    mirror: drafts are written there, and files are read there. It may be deleted between commands.
    """

    folder: Path
    # Whether the files lie elsewhere.
    is_mirror: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.folder.name

    @abstractmethod
    def __str__(self) -> str:
        """The path or the URL."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """The file of this name, or all files below it, at any depth."""

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    @abstractmethod
    def create(self, name: str, content: bytes) -> None:
        """Create a file with this content. Raises FileExistsError where the name exists."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Create or replace a file in one moment."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None: ...

    @abstractmethod
    def delete(self, names: Collection[str]) -> None:
        """Delete files durably."""

    def names(self, prefix: str) -> Iterable[str]:
        """The names one level below a prefix, of files and of folders."""
        return {e.name.removeprefix(f"{prefix}/").split("/")[0] for e in self.list(prefix)}

    def find(self, names: Collection[str]) -> Mapping[str, Entry]:
        """Those of these files of snapshots that exist, by their names."""
        folders = {"/".join(name.split("/")[:2]) for name in names}
        return {entry.name: entry for folder in folders for entry in self.list(folder)}

    def changed_s(self, name: str) -> float | None:
        """The last change of a file, or of anything below the name; None where there is nothing."""
        return max((e.changed_s for e in self.list(name)), default=None)

    def hash(self, name: str) -> str:
        """SHA-256 of a file, read at its place."""
        return durable_io.bytes_hash(self.read(name))

    def clear(self, name: str) -> None:
        """Delete all files below a name, in the mirror, too."""
        self.delete([entry.name for entry in self.list(name)])
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def keep(self, prefix: str, new: Collection[str], shared: Mapping[str, str]) -> None:
        """Make the draft in this folder of the mirror durable, which no manifest names yet: its
        `new` data files, and its summaries. `shared` has the names of older files by their names in
        the draft."""
        from concurrent.futures import ThreadPoolExecutor

        draft = self.folder / prefix
        paths = [path for path in sorted(draft.rglob("*")) if path.is_file()]
        names = [path.relative_to(draft).as_posix() for path in paths]

        def save(name: str) -> None:
            if name in shared:
                self.copy(shared[name], f"{prefix}/{name}")
            else:
                self.put(f"{prefix}/{name}", (draft / name).read_bytes())

        with ThreadPoolExecutor(_THREADS) as pool:
            # The list raises the first failure.
            list(pool.map(save, names))

    def local(self, name: str, *, size: int, sha256: str) -> Path:
        """The local path of an immutable file. Raises SnapshotDamaged where it has to be fetched,
        and is missing or has changed."""
        path = self.folder / name
        if not path.exists() or path.stat().st_size != size:
            # Unchanged months keep their names from snapshot to snapshot.
            kind, _, rest = name.split("/", 2)
            known = (folder / rest for folder in (self.folder / kind).glob("*"))
            same = next((p for p in known if _is_same(p, size, sha256)), None)
            if same is None:
                self.fetch(name, sha256)
            else:
                path.unlink(missing_ok=True)
                # Another command may put it there at this moment.
                with suppress(FileExistsError):
                    durable_io.share(same, path)
        return path

    def is_intact(self, name: str, *, size: int, sha256: str) -> bool:
        """Whether the local file, read again, is as written; a changed copy is fetched again."""
        try:
            path = self.local(name, size=size, sha256=sha256)
            if durable_io.file_hash(path) != sha256:
                self.fetch(name, sha256)
        except SnapshotDamaged:
            return False
        return True

    def fetch(self, name: str, sha256: str | None) -> None:
        """Put a file into the mirror. Raises SnapshotDamaged where it is missing, or has another
        hash than a given one."""
        try:
            content = self.read(name)
            problem = "has changed (its SHA-256 differs)"
            damaged = sha256 is not None and durable_io.bytes_hash(content) != sha256
        except FileNotFoundError:
            problem, damaged = "is gone", True
        if damaged:
            raise SnapshotDamaged(
                f"{name} of {self} {problem}: restore the file, or `bitstorm rollback` to a "
                "snapshot without it"
            )
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        durable_io.replace(path, content)


def _is_same(path: Path, size: int, sha256: str) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_size == size and durable_io.file_hash(path) == sha256
    return False


@dataclass(frozen=True)
class LocalFiles(FileSystem):
    """A local folder: drafts and files lie where they are."""

    is_mirror = False

    def __str__(self) -> str:
        return str(self.folder)

    def list(self, prefix: str) -> Iterator[Entry]:
        top, start = self.folder / prefix, len(str(self.folder)) + 1
        for path in _walk(str(top)) if top.is_dir() else [top] if top.exists() else ():
            yield _entry(os.fspath(path)[start:], path.stat())

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        durable_io.create(self.folder / name, content)

    def put(self, name: str, content: bytes) -> None:
        durable_io.replace(self.folder / name, content)

    def copy(self, source: str, target: str) -> None:
        durable_io.share(self.folder / source, self.folder / target)

    def delete(self, names: Collection[str]) -> None:
        for name in names:
            (self.folder / name).unlink()
        for parent in {(self.folder / name).parent for name in names}:
            durable_io.sync_folder(parent)

    def names(self, prefix: str) -> Iterable[str]:
        try:
            return [path.name for path in (self.folder / prefix).iterdir()]
        except FileNotFoundError:
            return []

    def find(self, names: Collection[str]) -> Mapping[str, Entry]:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                found[name] = _entry(name, (self.folder / name).stat())
        return found

    def changed_s(self, name: str) -> float | None:
        # A folder's: a draft may hold nothing yet, or only links to old files.
        try:
            return (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def hash(self, name: str) -> str:
        return durable_io.file_hash(self.folder / name)

    def clear(self, name: str) -> None:
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def keep(self, prefix: str, new: Collection[str], shared: Mapping[str, str]) -> None:
        draft = self.folder / prefix
        if draft.exists():
            durable_io.sync_tree(draft, [draft / name for name in new])

    def local(self, name: str, *, size: int, sha256: str) -> Path:
        return self.folder / name

    def is_intact(self, name: str, *, size: int, sha256: str) -> bool:
        path = self.folder / name
        return path.exists() and durable_io.file_hash(path) == sha256


def _entry(name: str, s: os.stat_result) -> Entry:
    return Entry(name, s.st_size, s.st_mtime, s.st_nlink, (s.st_dev, s.st_ino))


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    """All files below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                yield entry


# A local data set's root may be given as its path.
Root: TypeAlias = Path | FileSystem


def files_of(root: Root) -> FileSystem:
    """The file system of a data set's root."""
    return LocalFiles(root) if isinstance(root, Path) else root
