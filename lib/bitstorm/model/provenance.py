"""What computed a result: the code, the libraries, the machine's share of it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

from bitstorm import __version__
from bitstorm.spark.java import project_root

_GIT_SECONDS = 5.0


def code() -> dict[str, Any]:
    """The package's version and, in a checkout, its commit (`-dirty` where files differ)."""
    return {"version": __version__, "commit": _commit()}


def versions(*libraries: str) -> dict[str, str]:
    """Of Python and of the libraries that had a part in it."""
    return {
        "bitstorm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def _commit() -> str | None:
    root = project_root()
    if root is None or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            [*command, "--dirty"],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
