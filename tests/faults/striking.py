"""Faults at the n-th file-system call of a process, put in from outside of the product.

A strike watches every call that Python makes below a folder: an audit hook sees open, link,
rename, mkdir, remove, rmdir, listdir and the like, wrappers see fsync and close, and Parquet's
writers, which Python does not see, before and after (half of the file may then be missing). At
the n-th call the strike falls:

    kill       the process dies at once, as under SIGKILL
    interrupt  KeyboardInterrupt, once
    EIO …      OSError of that name, once
    full       ENOSPC, from there on at every call that needs space; removing still works
    gone       EIO, from there on at every call: for the file system the process has died

Only calls that change something count, unless `reads`: a kill before one that does not leaves
what a kill before the next one leaves. Each call is also written to the file descriptor `told`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("kill", "interrupt", "EIO", "ENOSPC", "full", "gone")
_PATHS = {"open", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.listdir", "os.scandir"}
_PAIRS = {"os.link", "os.rename", "shutil.copyfile"}
_SPACE = {"os.mkdir", "os.link", "os.rename", "shutil.copyfile", "fsync", "write", "written"}


class Strike:
    """At most one a process is armed; the hook itself can't be taken out again."""

    _armed: Strike | None = None
    _hooked = False

    def __init__(
        self, folder: Path, kind: str, number: int, *, reads: bool = False, told: int | None = None
    ) -> None:
        assert kind in KINDS
        self._folder, self._kind, self._number = str(folder), kind, number
        self._reads = reads
        self._told = told
        self.calls: list[str] = []

    def __enter__(self) -> Strike:
        if not Strike._hooked:
            sys.addaudithook(_audit)
            _wrap()
            Strike._hooked = True
        Strike._armed = self
        return self

    def __exit__(self, *_: object) -> None:
        Strike._armed = None

    @property
    def fell(self) -> bool:
        return len(self.calls) >= self._number

    def call(self, event: str, *paths: Any, needs_space: bool, half: Path | None = None) -> None:
        changes = needs_space or event in ("os.remove", "os.rmdir", "os.truncate")
        if not changes and not self._reads:
            return
        if not any(_text(path).startswith(self._folder) for path in paths):
            return
        self.calls.append(f"{event} {_text(paths[-1]).removeprefix(self._folder)}")
        if self._told is not None:
            os.write(self._told, f"{self.calls[-1]}\n".encode())
        number = len(self.calls)
        if number < self._number:
            return
        first = number == self._number
        if first and half is not None and half.exists():
            os.truncate(half, half.stat().st_size // 2)
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "gone":
            raise OSError(errno.EIO, "Input/output error (all is gone)", self.calls[-1])
        if self._kind == "full":
            if needs_space:
                raise OSError(errno.ENOSPC, "No space left on device", self.calls[-1])
            return
        if not first:
            return
        if self._kind == "interrupt":
            raise KeyboardInterrupt
        code = getattr(errno, self._kind)
        raise OSError(code, os.strerror(code), self.calls[-1])


def _text(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        return ""


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    strike = Strike._armed
    if strike is None:
        return
    if event in _PATHS:
        writes = event == "open" and _opens_to_write(arguments)
        Strike._armed = None
        try:
            path = _text(arguments[0])
            if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # relative to a folder
                path = f"{_path_of(arguments[1])}/{path}"
            strike.call(event, path, needs_space=writes or event in _SPACE)
        finally:
            Strike._armed = strike
    elif event in _PAIRS:
        Strike._armed = None
        try:
            strike.call(event, arguments[0], arguments[1], needs_space=event in _SPACE)
        finally:
            Strike._armed = strike


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _seen(event: str, path: Any, *, half: Path | None = None) -> None:
    strike = Strike._armed
    if strike is not None:
        Strike._armed = None
        try:
            strike.call(event, path, needs_space=event in _SPACE, half=half)
        finally:
            Strike._armed = strike


def _wrap() -> None:
    import pyarrow.parquet as pq

    fsync: Callable[..., None] = os.fsync
    write_table: Callable[..., None] = pq.write_table

    def synced(descriptor: int) -> None:
        if Strike._armed is not None:
            _seen("fsync", _path_of(descriptor))
        fsync(descriptor)

    def written(table: Any, where: Any, *arguments: Any, **options: Any) -> None:
        _seen("write", str(where))
        write_table(table, where, *arguments, **options)
        _seen("written", str(where), half=Path(str(where)))

    os.fsync = synced  # type: ignore[assignment]
    pq.write_table = written
