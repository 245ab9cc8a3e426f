"""What the README says holds; its length, links and command lines are in test_docs.py."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def test_the_training_uses_what_it_names() -> None:
    model = (ROOT / "lib" / "bitstorm" / "model").rglob("*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in model)
    for name in (
        "make_spark_converter",
        "make_tf_dataset",
        "EarlyStopping",
        "ModelCheckpoint",
        "CSVLogger",
        "TerminateOnNaN",
    ):
        assert f"`{name}`" in README
        assert name in code, name


def test_it_names_the_source_as_the_report_does() -> None:
    assert "Data provided by [CoinGecko](" in README


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_its_python_imports_what_there_is(path: Path) -> None:
    for block in blocks(path):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [n.name for n in node.names if not hasattr(module, n.name)] == []
