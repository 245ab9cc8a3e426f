"""Real answers and price files, where they are: they are no part of the project."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def recording(name: str) -> Path:
    """The file of that name; skips the test where there is none."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not here: recordings are no part of the project")
    return path
