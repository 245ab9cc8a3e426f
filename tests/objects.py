"""A store of objects in memory, for the tests: whole objects, a conditional put, and nothing else.

No links, no renames, no locks, no folders. Each operation can be counted, and be the last one of
its process.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bitstorm.core.file_system import Entry, FileSystem


class Crash(BaseException):
    """The process is gone; no handler of the code under test may go on."""


@dataclass
class Bucket:
    """The objects, and the operations so far. Before the operation with the number `last`, or after
    it where `after`, the process of every user of the bucket ends."""

    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    operations: list[str] = field(default_factory=list)
    last: int | None = None
    after: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def act(self, what: str, act: Callable[[], object]) -> None:
        with self.lock:
            self.operations.append(what)
            over = 0 if self.last is None else len(self.operations) - self.last
            if over > 0 or (over == 0 and self.last is not None and not self.after):
                raise Crash(what)
            act()
            if over == 0 and self.last is not None:
                raise Crash(what)


@dataclass(frozen=True)
class Objects(FileSystem):
    """A data set in a bucket. `folder` is the mirror of one machine."""

    bucket: Bucket = field(default_factory=Bucket, compare=False)

    def __str__(self) -> str:
        return f"objects://bucket/{self.name}"

    def elsewhere(self) -> Objects:
        """The same data set on another machine, whose mirror is empty."""
        return replace(self, folder=Path(tempfile.mkdtemp(dir=self.folder.parent)) / self.name)

    def list(self, prefix: str) -> Iterator[Entry]:
        found: dict[str, tuple[bytes, float]] = {}
        self.bucket.act(f"list {prefix}", lambda: found.update(self.bucket.objects))
        for name, (content, changed_s) in sorted(found.items()):
            if name == prefix or name.startswith(f"{prefix}/" if prefix else ""):
                yield Entry(name, len(content), changed_s)

    def read(self, name: str) -> bytes:
        found: dict[str, tuple[bytes, float]] = {}
        self.bucket.act(f"read {name}", lambda: found.update(self.bucket.objects))
        if name not in found:
            raise FileNotFoundError(name)
        return found[name][0]

    def create(self, name: str, content: bytes) -> None:
        def act() -> None:
            if name in self.bucket.objects:
                raise FileExistsError(name)
            self.bucket.objects[name] = (content, time.time())

        self.bucket.act(f"create {name}", act)

    def put(self, name: str, content: bytes) -> None:
        def act() -> None:
            self.bucket.objects[name] = (content, time.time())

        self.bucket.act(f"put {name}", act)

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.bucket.objects[source][0])

    def delete(self, names: Collection[str]) -> None:
        for name in names:
            self.bucket.act(f"delete {name}", partial(self.bucket.objects.pop, name))
