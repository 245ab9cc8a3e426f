"""One JSON object a line for each stage of a command, for a scheduler's log collector."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.core.console import Console
from bitstorm.core.durable_io import lock
from bitstorm.core.errors import BitstormError, UsageError, first_line
from bitstorm.core.time import iso, now_ms
from bitstorm.core.workspace import Workspace, local_path

if TYPE_CHECKING:
    from bitstorm.store.manifest import Manifest


@dataclass
class StageLog:
    """Appends the stages of `command` to `file`; does nothing without a file. `workspace` is known
    once the settings are read."""

    command: str = ""
    file: Path | None = None
    workspace: Workspace | None = None

    def open(self, file: Path) -> None:
        """Log to `file` from now on; makes its folder. Raises UsageError for a URL that is no file,
        and OSError where it cannot be written: before a command's work, not after it."""
        file = local_path(file, error=UsageError, what="--stage-log")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
        self.file = file

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[Any], None]]:
        """Log the block as a stage when it ends or fails; the block gets a function of its result.
        A signal leaves no line."""
        results: list[Any] = [None]
        began = time.monotonic()
        try:
            yield results.append
        except Exception as error:
            self.write(name, seconds=time.monotonic() - began, error=first_line(error))
            raise
        self.write(name, seconds=time.monotonic() - began, of=results[-1])

    def write(
        self,
        stage: str,
        *,
        seconds: float,
        of: Any = None,
        exit: int | None = None,
        error: str | None = None,
    ) -> None:
        """Append a line about a stage that has ended now.

        `of` is its result, or the snapshot that it has read. Only a command's own line has the exit
        code. A file that can no longer be written gives one warning and no error.
        """
        if self.file is None:
            return
        record = {
            "time": iso(now_ms()),
            "command": self.command,
            "stage": stage,
            "seconds": round(seconds, 3),
            **_size(of, self.workspace),
            "exit": exit,
            "error": None if error is None else " ".join(error.split()),
        }
        try:
            _append(self.file, (json.dumps(record) + "\n").encode())
        except OSError as failure:
            Console().warn(f"{self.file} gets no more lines about stages: {failure.strerror}")
            self.file = None


def _append(file: Path, line: bytes) -> None:
    """Append under the file's lock, so that the lines of two commands don't mix."""
    with file.open("ab+", buffering=0) as stream:
        lock(stream.fileno())
        # A machine that stopped, or a full disk, can leave half a line.
        if stream.seekable() and stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line)


def _size(of: Any, workspace: Workspace | None) -> dict[str, Any]:
    """Rows, bytes and ID of the snapshot that a result names, else the rows that it landed; None
    for what it has not."""
    manifest = getattr(of, "manifest", None)
    name = getattr(of, "snapshot", None) or getattr(of, "indicators", None)
    with suppress(BitstormError, OSError):
        if manifest is None and isinstance(name, str) and workspace is not None:
            manifest = _manifest(workspace, name)
    if manifest is not None:
        size = sum(file.size for file in manifest.files)
        return {"rows": manifest.rows, "bytes": size, "snapshot": manifest.id}
    rows = getattr(of, "rows", None)
    return {"rows": rows if isinstance(rows, int) else None, "bytes": None, "snapshot": None}


def _manifest(workspace: Workspace, snapshot: str) -> Manifest | None:
    # Loads pyarrow, which `collect` has no use for.
    from bitstorm.store import snapshots

    found = (snapshots.known(root, snapshot) for root in (workspace.prices, workspace.indicators))
    return next((one.manifest for one in found if one is not None), None)
