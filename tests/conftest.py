"""Shared by all tests: the Spark session, quiet third parties, and the real data where present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitstorm import quiet

# The package makes its own warnings errors in tests; third parties' are filtered as in commands.
from bitstorm.testing import spark_session  # noqa: F401

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    quiet.hush_loggers()
    # As `torch_network` does it, for the tests that load PyTorch before it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def hushed_third_parties() -> object:
    with quiet.third_party_warnings_hushed():
        yield


@pytest.fixture
def real_data() -> Path:
    """The folder of real prices beside the project; they are not part of it."""
    if not DATA.is_dir():
        pytest.skip("the real prices of ../shared/data are not here")
    return DATA
