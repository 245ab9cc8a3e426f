"""Spark's own record of an application, as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def settings(folder: Path) -> dict[str, Any]:
    """Of a session that writes its event log below this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "spark.eventLog.enabled": True,
        "spark.eventLog.compress": False,
        "spark.eventLog.dir": folder.as_uri(),
    }


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """All events below the folder; the log is complete after the session's end."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".crc":
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, filter(str.strip, lines))
