"""Where the store's tests keep their data set: in a folder, and in a store of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitstorm.core.file_system import Root
from objects import Objects


@pytest.fixture(params=["folder", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """The root of a data set that does not exist yet."""
    folder = tmp_path / "prices"
    return folder if request.param == "folder" else Objects(folder)
