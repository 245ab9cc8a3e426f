"""Batches as a person or a collector leaves them in a landing folder."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from bitstorm.context import Context
from bitstorm.core.config import load
from bitstorm.core.console import Console
from bitstorm.core.workspace import open_workspace

HOUR = 3_600_000


def drop(landing: Path, name: str, text: str | bytes, *, age: float = 60.0) -> Path:
    """A file without a sidecar, last written `age` seconds ago."""
    landing.mkdir(parents=True, exist_ok=True)
    path = landing / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def collected(landing: Path, name: str, text: str, **stated: Any) -> Path:
    """A file with its sidecar, as the collector writes them."""
    path = drop(landing, name, text, age=0)
    record = {
        "rows": len(text.splitlines()) - 1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "simulated:7",
        "coin": "bitcoin",
        "vs_currency": "usd",
        "granularity_ms": HOUR,
        "first_ms": None,
        "last_ms": None,
        "fetched_at": 1_700_000_000_000,
        **stated,
    }
    path.with_name(path.name + ".json").write_text(json.dumps(record))
    return path


def context_of(root: Path, *overrides: str, snapshot: str | None = None) -> Context:
    """A command's context on the workspace `root`, silent."""
    settings = load(overrides=overrides).settings
    return Context(open_workspace(str(root)), settings, Console(quiet=True), snapshot)
