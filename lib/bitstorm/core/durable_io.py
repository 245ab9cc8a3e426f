"""The file-system part of a commit: durable files, exclusive names, hashes, locks.

A name appears whole or not at all: bytes go to a temporary file, which is synced, then linked to
the name (a link fails where the name exists), then the folder is synced. Without hard links a
rename that refuses to replace does the same; a file system with neither is refused. A lock is an
agreement among writers; where it fails, the exclusive names still decide.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bitstorm.core.errors import StoreError

TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 60
_LEFTOVER_SECONDS = 86_400
_POLL_SECONDS = 0.05
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# Errors of `link` without hard links, or across mounts.
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def create(path: Path, content: bytes) -> None:
    """Create `path` with exactly this content, durably. Raises FileExistsError where it exists,
    StoreError where the file system cannot promise this."""
    with _new_file(path, _link_new) as stream:
        stream.write(content)


def replace(path: Path, content: bytes) -> None:
    """Replace the file's content in one moment, durably."""
    with replacing(path) as stream:
        stream.write(content)


def replacing(path: Path) -> AbstractContextManager[BinaryIO]:
    """As `replace`, for content in pieces: the block writes it to the stream.

    When the block fails, the old file stays and nothing else is left.
    """
    return _new_file(path, Path.replace)


@contextmanager
def _new_file(path: Path, name: Callable[[Path, Path], object]) -> Iterator[BinaryIO]:
    """A temporary file for the block's content; `name` then gives it its name."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def delete_leftovers(path: Path) -> None:
    """Delete the temporary files of killed runs for `path` that are older than a minute: on a mount
    without locks another writer can be at work."""
    until = time.time() - _ABANDONED_SECONDS
    for temporary in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-*"):
        with contextlib.suppress(FileNotFoundError):
            if temporary.stat().st_mtime < until:
                temporary.unlink()


def share(source: Path, target: Path) -> None:
    """`target` becomes the same immutable file as `source`: a hard link, or a copy without them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
        sync_file(target)


def lock(descriptor: int, *, wait_seconds: float = math.inf, shared: bool = False) -> bool:
    """Take an open file's lock, exclusive or shared; the kernel frees it when its holder dies.

    False when another process holds it for longer. True on a mount without locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, kind if wait_seconds == math.inf else kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_SECONDS)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for the block, on a file of its own; waits without limit."""
    with path.open("a") as stream:
        lock(stream.fileno())
        yield


@contextmanager
def private_folder(root: Path) -> Iterator[Path]:
    """The path of a new folder under `root`, deleted after the block; other processes, on any host,
    have others.

    Deletes the folders of killed processes, too: the kernel has freed their locks, and they are
    old. On a mount without locks only the age decides.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in root.glob("*.lock"):
        with contextlib.suppress(OSError), path.open() as stream:
            old = time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS
            if old and lock(stream.fileno(), wait_seconds=0):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
    folder = root / secrets.token_hex(8)
    path = folder.with_suffix(".lock")
    with path.open("x") as stream:
        lock(stream.fileno())
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)


def sync_tree(folder: Path, files: Iterable[Path]) -> None:
    """Sync these files, all names under `folder`, and its own."""
    for file in files:
        sync_file(file)
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder)
    sync_folder(folder.parent)


def sync_file(path: Path, *, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    try:
        sync_file(path, flags=os.O_DIRECTORY)
    except OSError as error:
        # Some network mounts cannot sync a folder; they order names themselves.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _link_new(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_new(source, target)
    else:
        source.unlink()


def _rename_new(source: Path, target: Path) -> None:
    """Linux's renameat2 with RENAME_NOREPLACE, through libc: Python has no function for it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
        )
        if done == 0:
            return
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            raise FileExistsError(code, os.strerror(code), str(target))
        if code not in (*_NO_LINKS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(target))
    raise StoreError(
        f"the file system of {target.parent} has neither hard links nor a rename that refuses to "
        "replace, so two runs could overwrite each other: choose a workspace on a local disk or "
        "an NFS mount"
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_hash(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()


def json_hash(value: Any) -> str:
    """SHA-256 of the canonical text: sorted keys, no spaces, ASCII."""
    return bytes_hash(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def writer_lock(root: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the data set's lock; the kernel frees it when its holder dies.

    Raises StoreError when another process holds it for longer than `wait_seconds`. On a mount
    without locks the block runs without one.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not lock(descriptor, wait_seconds=wait_seconds):
            holder = os.pread(descriptor, 512, 0).decode(errors="replace").strip()
            raise StoreError(
                f"another run ({holder or 'unknown'}) is writing {root}; waited "
                f"{wait_seconds:g} s for it: try again when it has ended"
            )
        os.ftruncate(descriptor, 0)
        # On a shared mount the process can be another host's.
        holder = f"process {os.getpid()} on {socket.gethostname()}\n"
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)
