"""Who may import whom: the walls of ARCHITECTURE.md, read from the code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "lib" / "bitstorm"
PACKAGE = "bitstorm"

# A later room may import an earlier one, never back.
ROOMS = (
    "core",
    "spark",
    "simulator",
    "collect",
    "store",
    "context",
    "ingest",
    "indicators",
    "evaluation",
    "model",
    "backtest",
    "report",
    "pipelines",
    "cli",
)
# Public faces: they may import anything but the command line.
FACES = ("utils", "testing", "interface", "interface_models", "readers")
FENCES = {
    "pyspark": (
        "core/schema",
        "core/third_party_noise",
        "spark",
        "store",
        "context",
        "ingest",
        "indicators",
        "model",
        "pipelines",
        "testing",
    ),
    "grpc": ("spark",),
    "requests": ("collect",),
    "urllib3": ("collect",),
    "fsspec": ("core/object_store",),
    "petastorm": ("store", "model/dataset", "model/feed"),
    "scipy": ("evaluation",),
    "arch": ("evaluation",),
    "statsmodels": ("evaluation",),
    "statsforecast": ("evaluation",),
    "lightgbm": ("evaluation",),
    "optuna": ("backtest",),
    "mlflow": ("backtest",),
    "torch": ("model/torch_", "model/backend"),
    "tensorflow": ("model", "context"),
    "keras": ("model", "context"),
    "matplotlib": ("report",),
    "plotly": ("report",),
    "jinja2": ("report",),
    "markupsafe": ("report",),
    "waitress": ("report",),
    "prometheus_client": ("report",),
    "click": ("cli",),
}
HEAVY = (
    "pyspark",
    "tensorflow",
    "keras",
    "torch",
    "matplotlib",
    "plotly",
    "pandas",
    "numpy",
    "petastorm",
    "scipy",
    "arch",
    "statsmodels",
    "statsforecast",
    "lightgbm",
    "optuna",
    "mlflow",
)


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def place(path: Path) -> str:
    """`store/landing` of `lib/bitstorm/store/landing.py`."""
    return path.relative_to(LIBRARY).with_suffix("").as_posix().removesuffix("/__init__")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                if child.module == PACKAGE or child.module.startswith(f"{PACKAGE}."):
                    found.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(tree)
    return found


def test_every_module_has_its_room():
    tops = {place(path).split("/")[0] for path in modules()} - {"__init__"}
    assert tops == {*ROOMS, *FACES}


def test_no_room_imports_a_later_one():
    wrong = []
    for path in modules():
        here = place(path).split("/")[0]
        if here in ("__init__", *FACES):
            continue
        later = {*ROOMS[ROOMS.index(here) + 1 :], *FACES}
        theirs = {n.split(".")[1] for n in imports(path) if n.startswith(f"{PACKAGE}.")}
        wrong += [f"{place(path)} imports {there}" for there in sorted(theirs & later)]
    assert wrong == []


def test_pipelines_hold_no_expressions_of_spark():
    wrong = [
        place(path)
        for path in modules()
        if place(path).startswith("pipelines/") and "pyspark.sql.functions" in imports(path)
    ]
    assert wrong == []


LINES, PARAMETERS, MODULE_LINES, PIPELINE_LINES = 60, 8, 400, 120
# What is longer, or takes more, and why.
LONG: dict[str, str] = {}
LONG_MODULES: dict[str, str] = {}


def test_functions_and_modules_are_short_or_have_a_reason():
    long, long_modules = set(), set()
    for path in modules():
        text = path.read_text(encoding="utf-8")
        pipeline = place(path).startswith("pipelines/")
        if len(text.splitlines()) > (PIPELINE_LINES if pipeline else MODULE_LINES):
            long_modules.add(place(path))
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            given = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > LINES or len({*given} - {"self", "cls"}) > PARAMETERS:
                long.add(f"{place(path)}.{node.name}")
    assert long == LONG.keys()
    assert long_modules == LONG_MODULES.keys()


def test_no_ten_lines_stand_in_two_places():
    seen: dict[tuple[str, ...], str] = {}
    twice = []
    for path in modules():
        text = path.read_text(encoding="utf-8").splitlines()
        lines = [(n, line.strip()) for n, line in enumerate(text, 1) if len(line.strip()) > 1]
        lines = [(n, s) for n, s in lines if not s.startswith(("import ", "from ", "#"))]
        for at in range(len(lines) - 9):
            run = tuple(s for _, s in lines[at : at + 10])
            here = f"{place(path)}:{lines[at][0]}"
            if seen.setdefault(run, here) != here:
                twice.append(f"{seen[run]} and {here}")
    assert twice == []


def test_every_test_file_is_named_after_its_module():
    tests = ROOT / "tests"
    wrong = []
    for path in sorted(tests.rglob("test_*.py")):
        room = path.parent.relative_to(tests)
        if not room.parts or room.parts[0] not in ROOMS:
            continue
        words = path.stem.removeprefix("test_").split("_")
        names = {"_".join(words[:end]) for end in range(1, len(words) + 1)}
        theirs = {module.stem for module in (LIBRARY / room).glob("*.py")} | {room.name}
        wrong += [path.relative_to(tests).as_posix()] if not names & theirs else []
    assert wrong == []


def test_names_of_tests_have_at_most_60_characters():
    long = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
        long += [name for name in names if name.startswith("test_") and len(name) > 60]
    assert long == []


def test_third_parties_stay_inside_their_fences():
    wrong = []
    for path in modules():
        for name in {name.split(".")[0] for name in imports(path)}:
            allowed = FENCES.get(name)
            if allowed and not place(path).startswith(allowed):
                wrong.append(f"{place(path)} imports {name}")
    assert wrong == []


# A remote session has none of them.
OF_THE_JVM = {"sparkContext", "rdd", "_jvm", "_jsc", "_jdf", "_jsparkSession"}


def test_the_driver_jvm_is_reached_from_its_room_alone():
    wrong = [
        f"{place(path)} uses {node.attr}"
        for path in modules()
        if not place(path).startswith("spark/")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in OF_THE_JVM
    ]
    assert wrong == []


def test_what_the_command_line_loads_first_is_light():
    start = [
        *(LIBRARY / "cli").glob("*.py"),
        LIBRARY / "core" / "errors.py",
        LIBRARY / "__init__.py",
    ]
    for path in start:
        heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & set(HEAVY)
        assert heavy == set(), path.name


# What pyspark, pandas and their own requirements bring: every managed Spark has it.
MANAGED = {
    "_distutils_hack", "cloudpickle", "dateutil", "numpy", "pandas", "psutil", "py4j", "pyarrow",
    "pyspark", "pytz", "six", "tzdata",
}  # fmt: skip
FOUND = """
import sys, sysconfig
import bitstorm.indicators.compute, bitstorm.indicators.kernel, pandas
site = sysconfig.get_path("purelib")
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(*{name.split(".")[0] for name, file in files.items() if file.startswith(site)})
"""


def test_tasks_of_the_indicators_import_only_what_spark_has():
    program = [sys.executable, "-c", FOUND]
    environ = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    done = subprocess.run(program, env=environ, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert {"numpy", "pandas", "pyarrow"} <= found <= MANAGED


def test_no_module_outside_the_tests_prints_or_edits_the_path():
    for path in [*modules(), *sorted((ROOT / "jobs").glob("*.py"))]:
        assert "sys.path" not in path.read_text(encoding="utf-8"), path


def test_files_beside_the_code_are_in_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = {
        path
        for package, patterns in settings["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (LIBRARY.parent / package.replace(".", "/")).glob(pattern)
    }
    files = (path for path in LIBRARY.rglob("*") if path.is_file())
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == packed
