"""Shared by all tests: the Spark session, quiet third parties, and the real data where present."""

from __future__ import annotations

import fcntl
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
    """Files with a slow test come first: of several processes none is left alone with one.

    Of these, first the ones of this folder, which are the longest; pytest itself has them last.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    here = Path(__file__).parent
    items.sort(key=lambda item: (item.path not in slow, item.path.parent != here))


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


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder for all processes of the run: the first fills it, the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        root, unfinished = base / name, tmp_path_factory.mktemp(name)
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not root.exists():
                shared_session(pytestconfig)
                with third_party_noise.without_third_party_warnings():
                    fill(unfinished)
                unfinished.rename(root)
        return root

    return made


@pytest.fixture(scope="session")
def ingested_workspace(made_once: Once) -> Path:
    """Batches and prices (see prepared.py). Shared: read it, or take a `workspace_copy`."""
    from bitstorm.pipelines.ingest import ingest

    def fill(root: Path) -> None:
        prepared.drop_batches(root / "landing")
        ingest(prepared.context(root))

    return made_once("ingested", fill)


@pytest.fixture(scope="session")
def indicators_workspace(ingested_workspace: Path, made_once: Once) -> Path:
    """`ingested_workspace` with its indicators. Shared, as that."""
    from bitstorm.pipelines.indicators import indicators

    return made_once(
        "indicators", lambda root: indicators(prepared.context(_copied(ingested_workspace, root)))
    )


@pytest.fixture(scope="session")
def prepared_workspace(indicators_workspace: Path, made_once: Once) -> Path:
    """`indicators_workspace` with a trained run, a forecast and a report. Shared, as that."""
    from bitstorm.pipelines.forecast import forecast
    from bitstorm.pipelines.report import report
    from bitstorm.pipelines.train import train

    def fill(root: Path) -> None:
        context = prepared.context(_copied(indicators_workspace, root))
        train(context)
        forecast(context)
        report(context)

    return made_once("prepared", fill)


@pytest.fixture
def workspace_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies a shared workspace: the copy is the test's own."""
    return lambda source: _copied(source, tmp_path_factory.mktemp("copy"))
