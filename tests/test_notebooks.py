"""The notebooks: what is committed, and what they show when they run from top to bottom."""

import ast
import base64
import functools
import html
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bitstorm
from bitstorm import utils
from bitstorm.core.workspace import file_url
from bitstorm.store.snapshots import required

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
EXAMPLE, EXPLORATION, HONEST = (
    "petastorm_bitcoin_processing_Example",
    "exploration",
    "honest_forecast",
)
MOST_BYTES = 1_500_000

SIMULATED = "SIMULATED market"
VERDICTS = (
    "Worth something: ",
    "Informative, ",
    "More accurate than 'the price stays as it is'",
    "Less accurate than 'the price stays as it is'",
    "No proven worth: ",
)
ABSOLUTE = re.compile(r"""(?:^|[\s"'(=>])(?:/\w|~/|[A-Za-z]:\\|file:)""", re.MULTILINE)


def texts(cell: Any) -> list[str]:
    """What the cell prints or shows as text; tables without their tags."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        found += [output.get("text", ""), data.get("text/plain", "")]
        table = re.sub(r"<style.*?</style>", "", data.get("text/html", ""), flags=re.DOTALL)
        found.append(html.unescape(re.sub(r"<[^>]+>", " ", table)))
    return found


def kinds(cell: Any) -> list[Any]:
    """The form of a cell's outputs."""
    return [output.get("name") or sorted(output.data) for output in cell.outputs]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    place = CHECKOUT / "scripts" / "lib" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("notebooks", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def stored(path: Path) -> Any:
    import nbformat  # takes seconds

    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def code(runner: ModuleType, stored: Any) -> list[Any]:
    found: list[Any] = runner.code_cells(stored)
    return found


@pytest.fixture(scope="module")
def trees(code: list[Any]) -> list[ast.Module]:
    return [ast.parse(cell.source) for cell in code]


def test_it_is_stored_as_jupyter_writes_it(path: Path, stored: Any) -> None:
    import nbformat

    nbformat.validate(stored)
    assert path.read_text(encoding="utf-8") == nbformat.writes(stored) + "\n"
    assert path.stat().st_size < MOST_BYTES
    assert {name: stored.metadata[name] for name in stored.metadata if name != "bitstorm"} == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in stored.cells)
    # Names and not random numbers, so that a diff says which cell has changed.
    ids = [cell.id for cell in stored.cells]
    assert all(re.fullmatch(r"[a-z-]+", name) for name in ids)
    assert len(set(ids)) == len(ids)


def test_its_outputs_are_those_of_one_run(runner: ModuleType, stored: Any, code: list[Any]) -> None:
    stamp = stored.metadata["bitstorm"]
    age = (datetime.now(UTC).date() - date.fromisoformat(stamp["date"])).days
    story = (
        f"the outputs are of {stamp['date']} ({age} days old) and of version {stamp['version']}: "
        "run scripts/notebooks"
    )
    assert stamp["code"] == runner.code_hash(stored), story
    assert stamp["version"] == bitstorm.__version__, story
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)], story


def test_every_code_cell_has_an_output_and_no_error(code: list[Any]) -> None:
    for cell in code:
        assert cell.outputs, cell.id
        assert not {"error", "stderr"} & {o.get("name", o.output_type) for o in cell.outputs}


def test_it_has_no_absolute_path(stored: Any) -> None:
    for cell in stored.cells:
        shown = texts(cell) if cell.cell_type == "code" else []
        for text in (cell.source, *shown):
            assert not ABSOLUTE.search(text), (cell.id, text)


def test_all_its_paths_stand_in_the_first_code_cell(trees: list[ast.Module]) -> None:
    first, *others = trees
    named = {node.id for node in ast.walk(first) if isinstance(node, ast.Name)}
    assert {"ROOT", "WORKSPACE"} <= named
    for tree in others:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"[^\s*]/|\.(csv|parquet|png|html|json)\b", node.value)
            # No path is joined either.
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                assert not named & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def test_its_cells_are_short_and_hold_no_logic(code: list[Any], trees: list[ast.Module]) -> None:
    logic = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.While, ast.Try)
    for cell, tree in zip(code, trees, strict=True):
        assert len(cell.source.splitlines()) <= 20, cell.id
        assert not [node for node in ast.walk(tree) if isinstance(node, logic)], cell.id


def test_it_uses_only_the_public_interface(path: Path, trees: list[ast.Module]) -> None:
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
    if path.stem == EXAMPLE:
        # From the first price to the forecast, in this order.
        steps = ["collect", "backfill", "ingest", "batch_reader", "to_spark", "train", "forecast"]
        called = [node.attr for node in attributes if node.attr in steps]
        assert list(dict.fromkeys(called)) == steps


@dataclass(frozen=True)
class Executed:
    """A notebook after a run, and the workspace that it filled."""

    cells: dict[str, Any]
    workspace: Path

    def printed(self, cell_id: str) -> str:
        outputs = self.cells[cell_id].outputs
        return "".join(o.text for o in outputs if o.output_type == "stream")

    def shown(self, cell_id: str) -> str:
        return "\n".join(texts(self.cells[cell_id]))


Run = Callable[[str], Executed]


@pytest.fixture(scope="module")
def run(runner: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a notebook, once for all tests."""

    @functools.cache
    def made(name: str) -> Executed:
        base = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BITSTORM_NOTEBOOK_WORKSPACE", str(base / "workspace"))
            # Nothing of the user's own Jupyter takes part.
            patch.setenv("JUPYTER_DATA_DIR", str(base / "jupyter"))
            patch.setenv("JUPYTER_RUNTIME_DIR", str(base / "jupyter" / "runtime"))
            patch.setenv("IPYTHONDIR", str(base / "ipython"))
            patch.setenv("SPARK_LOCAL_DIRS", str(base / "scratch"))
            (path,) = (path for path in NOTEBOOKS if path.stem == name)
            notebook = runner.executed(path, base / "project")
        cells = {cell.id: cell for cell in runner.code_cells(notebook)}
        return Executed(cells, base / "workspace")

    return made


@pytest.fixture(scope="module")
def executed(run: Run, path: Path) -> Executed:
    return run(path.stem)


def test_it_runs_without_a_word_on_stderr(executed: Executed) -> None:
    for name, cell in executed.cells.items():
        assert "stderr" not in kinds(cell), executed.printed(name)
        noise = re.search(r"Warning|WARN|INFO|Cache cleanup", executed.printed(name))
        assert noise is None, executed.printed(name)


def test_its_stored_outputs_have_the_form_of_this_run(
    executed: Executed, code: list[Any], stored: Any
) -> None:
    age = f"the stored outputs are of {stored.metadata['bitstorm']['date']}: run scripts/notebooks"
    assert {cell.id: kinds(cell) for cell in code} == {
        name: kinds(cell) for name, cell in executed.cells.items()
    }, age


def test_it_shows_its_pictures(executed: Executed) -> None:
    drawing = re.compile(r"plot_?\w*\(|generate_report\(")
    for name, cell in executed.cells.items():
        data = [output.get("data", {}) for output in cell.outputs]
        shown = [base64.b64decode(one["image/png"]) for one in data if "image/png" in one]
        assert bool(shown) == bool(drawing.search(cell.source)), name
        for png in shown:
            assert png.startswith(b"\x89PNG\r\n\x1a\n")
            assert len(png) > 15_000, f"{name}: an empty frame is smaller"


def test_what_it_shows_of_simulated_prices_says_so(executed: Executed) -> None:
    for name, cell in executed.cells.items():
        # A title is in the picture.
        if "ws.source" in cell.source and "title=" not in cell.source:
            assert SIMULATED in executed.shown(name), name
        # A table of prices has a caption; the rates are of other markets.
        elif ".style" in cell.source:
            assert name == "rates"


def test_the_examples_data_set_opens_with_petastorms_reader(run: Run) -> None:
    from petastorm import make_batch_reader

    executed = run(EXAMPLE)
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
    assert "best.keras" in executed.printed("checkpoints")


def test_the_example_ends_with_an_honest_verdict(run: Run) -> None:
    executed = run(EXAMPLE)
    verdict = executed.printed("verdict").splitlines()[-1]
    assert verdict.startswith(VERDICTS)
    metrics = json.loads((executed.workspace / "reports" / "metrics.json").read_text())
    assert verdict == metrics["verdict"]
    assert f"({metrics['grades']['count']:,} forecasts 1 × 1h ahead)" in verdict


def test_what_the_exploration_says_is_so(run: Run) -> None:
    executed = run(EXPLORATION)
    assert "between pandas and Spark: 0.000000 USD" in executed.printed("resample")
    # A simulated market has no season, and calm and wild weeks.
    (daily, chance), (weekly, _) = re.findall(
        r"correlation (\S+), by chance within ±(\S+)", executed.printed("season-twice")
    )
    assert abs(float(daily)) < 2 * float(chance)
    assert abs(float(weekly)) < 0.35
    calm, middle, wild = (
        float(re.search(rf"\b{name}\s+\S+\s+\S+\s+(\S+)", executed.shown("regimes"))[1])  # type: ignore[index]
        for name in ("calm", "middle", "wild")
    )
    assert calm < middle < wild
    assert (executed.workspace / "days.csv").stat().st_size > 10_000


def test_what_the_honest_notebook_says_is_so(run: Run) -> None:
    executed = run(HONEST)
    rows = {
        name: [float(number) for number in numbers.split()]
        for name, numbers in re.findall(
            r"(learns prices|learns returns|persistence)\s+((?:-?[\d.]+\s+){5})",
            executed.shown("same"),
        )
    }
    correlation, trailing, error, r2, skill = rows["learns prices"]
    assert correlation > 0.9
    assert trailing > correlation
    assert error < 2
    assert r2 > 0.7
    assert skill < -0.5
    assert abs(rows["learns returns"][4]) < 0.1
    assert rows["persistence"][4] == 0
    assert rows["persistence"][:1] >= rows["learns prices"][:1]
    assert "passed: True" in executed.printed("leaks")
    assert "found: the scale of log_return" in executed.printed("plant")
    assert executed.printed("close").splitlines()[-1].startswith(VERDICTS)
