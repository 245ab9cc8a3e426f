"""Shared by all tests: the Spark session, quiet third parties, and the real data where present."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import prepared
from bitstorm.core import third_party_noise

# The package makes its own warnings errors in tests; third parties' are filtered as in commands.
from bitstorm.testing import shared_session, spark_session  # noqa: F401

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    third_party_noise.hush_loggers()
    # As `torch_network` does it, for the tests that load PyTorch before it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: of several processes none is left alone with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def hushed_third_parties() -> object:
    with third_party_noise.without_third_party_warnings():
        yield


@pytest.fixture
def real_data() -> Path:
    """The folder of real prices beside the project; they are not part of it."""
    if not DATA.is_dir():
        pytest.skip("the real prices of ../shared/data are not here")
    return DATA


def _copied(source: Path, target: Path) -> Path:
    # Not by links: a test may write into a file.
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


@pytest.fixture(scope="session")
def ingested_workspace(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Batches and prices (see prepared.py). Shared: read it, or take a `workspace_copy`."""
    from bitstorm.pipelines.ingest import ingest

    root = tmp_path_factory.mktemp("ingested")
    shared_session(pytestconfig)
    prepared.drop_batches(root / "landing")
    with third_party_noise.without_third_party_warnings():
        ingest(prepared.context(root))
    return root


@pytest.fixture(scope="session")
def indicators_workspace(
    ingested_workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`ingested_workspace` with its indicators. Shared, as that."""
    from bitstorm.pipelines.indicators import indicators

    root = _copied(ingested_workspace, tmp_path_factory.mktemp("indicators"))
    with third_party_noise.without_third_party_warnings():
        indicators(prepared.context(root))
    return root


@pytest.fixture(scope="session")
def prepared_workspace(
    indicators_workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`indicators_workspace` with a trained run, a forecast and a report. Shared, as that."""
    from bitstorm.pipelines.forecast import forecast
    from bitstorm.pipelines.report import report
    from bitstorm.pipelines.train import train

    root = _copied(indicators_workspace, tmp_path_factory.mktemp("prepared"))
    context = prepared.context(root)
    with third_party_noise.without_third_party_warnings():
        train(context)
        forecast(context)
        report(context)
    return root


@pytest.fixture
def workspace_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies a shared workspace: the copy is the test's own."""
    return lambda source: _copied(source, tmp_path_factory.mktemp("copy"))
