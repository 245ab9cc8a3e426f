"""One writer at a time, by agreement; the exclusive manifest decides where the lock cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitstorm.core import durable_io
from bitstorm.core.errors import StoreError


@contextmanager
def writer_lock(root: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the data set's lock; the kernel frees it when its holder dies.

    Raises StoreError when another holds it for longer than `wait_seconds`. On a mount without
    locks the block runs without one.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not durable_io.lock(descriptor, wait_seconds=wait_seconds):
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
            raise StoreError(
                f"another run ({holder or 'unknown'}) is writing {root}; waited "
                f"{wait_seconds:g} s for it: try again when it has ended"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
