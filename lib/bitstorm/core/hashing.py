"""SHA-256, in hex."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def of_file(path: Path) -> str:
    """Of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_json(value: Any) -> str:
    """Of the canonical text: sorted keys, no spaces, ASCII."""
    return of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
