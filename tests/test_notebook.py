"""The example notebook: what is committed, and what it shows when it runs from top to bottom."""

import ast
import base64
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitstorm import utils
from bitstorm.core.workspace import file_url
from bitstorm.store.snapshots import required

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
NOTEBOOK = CHECKOUT / "notebooks" / "petastorm_bitcoin_processing_Example.ipynb"

SIMULATED = "SIMULATED market"
HONEST = (
    "Worth something: ",
    "Informative, ",
    "More accurate than 'the price stays as it is'",
    "Less accurate than 'the price stays as it is'",
    "No proven worth: ",
)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def committed() -> Any:
    import nbformat  # takes seconds

    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def trees(committed: Any) -> list[ast.Module]:
    return [ast.parse(cell.source) for cell in code_cells(committed)]


def test_it_is_committed_without_outputs(committed: Any) -> None:
    import nbformat

    nbformat.validate(committed)
    # As Jupyter itself writes it: a line of code is a line of the file.
    assert NOTEBOOK.read_text(encoding="utf-8") == nbformat.writes(committed) + "\n"
    assert committed.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in code_cells(committed):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert all(cell.metadata == {} for cell in committed.cells)
    # Names and not random numbers, so that a diff says which cell has changed.
    ids = [cell.id for cell in committed.cells]
    assert all(re.fullmatch(r"[a-z-]+", name) for name in ids)
    assert len(set(ids)) == len(ids)


def test_it_has_no_absolute_path(committed: Any) -> None:
    absolute = re.compile(r"""(?:^|[\s"'(=])(?:/\w|~/|[A-Za-z]:\\|file:)""", re.MULTILINE)
    for cell in committed.cells:
        assert not absolute.search(cell.source), cell.id


def test_all_its_paths_stand_in_the_first_code_cell(trees: list[ast.Module]) -> None:
    first, *others = trees
    assert {"ROOT", "WORKSPACE"} <= {
        node.id for node in ast.walk(first) if isinstance(node, ast.Name)
    }
    for tree in others:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"\S/|\.(csv|parquet|png|html|json)\b", node.value)
            # No path is joined either.
            assert not isinstance(node, ast.Div), ast.unparse(tree)


def test_its_cells_are_short_and_hold_no_logic(committed: Any, trees: list[ast.Module]) -> None:
    logic = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.While, ast.Try)
    for cell, tree in zip(code_cells(committed), trees, strict=True):
        assert len(cell.source.splitlines()) <= 20, cell.id
        assert not [node for node in ast.walk(tree) if isinstance(node, logic)], cell.id


def test_it_uses_only_the_public_interface(trees: list[ast.Module]) -> None:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    froms = {
        (node.module, name.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert {name for name in plain if name.startswith("bitstorm")} == {"bitstorm"}
    places = {module for module, _ in froms if str(module).startswith("bitstorm")}
    assert places <= {"bitstorm", "bitstorm.utils", "bitstorm.testing"}
    assert {name for module, name in froms if module == "bitstorm.utils"} <= {*utils.__all__}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    of = {(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name)}
    assert {name for value, name in of if value == "bitstorm"} == {"open_workspace"}
    assert not [node.attr for node in attributes if node.attr.startswith("_")]
    # From the first price to the forecast, in this order.
    steps = ["collect", "backfill", "ingest", "batch_reader", "to_spark", "train", "forecast"]
    called = [node.attr for node in attributes if node.attr in steps]
    assert list(dict.fromkeys(called)) == steps


@dataclass(frozen=True)
class Executed:
    """The notebook after a run, and the workspace that it filled."""

    notebook: Any
    workspace: Path

    def outputs(self, cell_id: str) -> list[Any]:
        (cell,) = [cell for cell in self.notebook.cells if cell.id == cell_id]
        return list(cell.outputs)

    def printed(self, cell_id: str) -> str:
        return "".join(o.text for o in self.outputs(cell_id) if o.output_type == "stream")

    def shown(self, cell_id: str, kind: str) -> list[str]:
        """What a cell displays, of one MIME type."""
        data = [output.get("data", {}) for output in self.outputs(cell_id)]
        return [found[kind] for found in data if kind in found]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executed]:
    import nbformat
    from nbclient import NotebookClient

    base = tmp_path_factory.mktemp("notebook")
    copy = shutil.copy(NOTEBOOK, base)
    notebook = nbformat.read(copy, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITSTORM_NOTEBOOK_WORKSPACE", str(base / "workspace"))
        # Nothing of the user's own Jupyter takes part.
        patch.setenv("JUPYTER_DATA_DIR", str(base / "jupyter"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(base / "jupyter" / "runtime"))
        patch.setenv("IPYTHONDIR", str(base / "ipython"))
        patch.setenv("SPARK_LOCAL_DIRS", str(base / "scratch"))
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=300,
            allow_errors=True,
            resources={"metadata": {"path": str(base)}},
        )
        client.execute()
    yield Executed(notebook, base / "workspace")


def test_it_runs_without_an_error_or_a_word_on_stderr(executed: Executed) -> None:
    for cell in code_cells(executed.notebook):
        for output in cell.outputs:
            assert output.output_type != "error", "\n".join(output.traceback)
            assert output.get("name") != "stderr", f"{cell.id}: {output.text}"
        noise = re.search(r"Warning|WARN|INFO|Cache cleanup", executed.printed(cell.id))
        assert noise is None, f"{cell.id}: {executed.printed(cell.id)}"


@pytest.mark.parametrize(
    ("cell_id", "pictures"),
    [("average", 1), ("volatility", 1), ("report", 2), ("pictures", 1), ("training", 1)],
)
def test_it_shows_its_pictures(executed: Executed, cell_id: str, pictures: int) -> None:
    shown = [base64.b64decode(text) for text in executed.shown(cell_id, "image/png")]
    assert len(shown) == pictures
    for png in shown:
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(png) > 20_000, "an empty frame is smaller"


def test_what_it_shows_of_simulated_prices_says_so(executed: Executed) -> None:
    for cell_id in (
        "settings",
        "fetch",
        "average",
        "volatility",
        "report",
        "returns",
        "forecast",
        "verdict",
    ):
        assert SIMULATED in executed.printed(cell_id), cell_id
    for cell_id in ("batch", "frame", "query"):
        (table,) = executed.shown(cell_id, "text/html")
        assert SIMULATED in table, cell_id


def test_its_data_set_opens_with_petastorms_reader(executed: Executed) -> None:
    from petastorm import make_batch_reader

    said = {
        int(number.replace(",", ""))
        for text in (executed.printed("ingest"), executed.printed("reader"))
        for number in re.findall(r"([\d,]+) rows in", text)
    }
    # As in the notebook without petastorm's threads, which can lose a pass.
    reader = make_batch_reader(
        file_url(required(executed.workspace / "prices").folder),
        num_epochs=1,
        reader_pool_type="dummy",
    )
    try:
        rows = sum(len(batch.timestamp) for batch in reader)
    finally:
        reader.stop()
        reader.join()
    assert said == {rows}
    # 120 days of hours, some of which the market leaves empty or doubles.
    assert 2_700 < rows < 3_000


def test_it_ends_with_an_honest_verdict(executed: Executed) -> None:
    verdict = executed.printed("verdict").splitlines()[-1]
    assert verdict.startswith(HONEST)
    metrics = json.loads((executed.workspace / "reports" / "metrics.json").read_text())
    assert verdict == metrics["verdict"]
    assert f"({metrics['grades']['count']:,} forecasts 1 × 1h ahead)" in verdict
