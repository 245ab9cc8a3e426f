"""The documents: generated pages, lengths, links, command lines."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from bitstorm.cli import bitstorm
from bitstorm.store.stage_log import StageLog
from guide import DOCS, fences
from guide import PAGES as GUIDE

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# --- generated pages, lengths, links -------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    place = ROOT / "scripts" / "lib" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "schemas.md"])
def test_the_reference_is_what_the_code_says(reference: ModuleType, name: str) -> None:
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == reference.pages()[name], (
        f"docs/reference/{name} is not what the code says: run scripts/reference and commit it"
    )


@pytest.mark.parametrize(("name", "lines"), [("README", 180), ("ARCHITECTURE", 150)])
def test_the_first_pages_are_short(name: str, lines: int) -> None:
    assert len((ROOT / f"{name}.md").read_text(encoding="utf-8").splitlines()) <= lines


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_has_its_four_parts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {path.name[:3]}: \S", text)
    parts = ["Context", "Decision", "Measured", "Consequences"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == parts
    assert 15 <= len(text.splitlines()) <= 40


def test_every_decision_is_in_the_list() -> None:
    listed = re.findall(r"\]\((0[^)]*)\)", (DOCS / "decisions" / "index.md").read_text())
    assert listed == [path.name for path in DECISIONS]


def anchors(path: Path) -> set[str]:
    titles = re.findall(
        r"^#+ (.*)$", without_fences(path.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_has_its_target(path: Path) -> None:
    text = without_fences(path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        place, _, anchor = target.partition("#")
        linked = path.parent / place if place else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        leaf for part in (nav if isinstance(nav, list) else nav.values()) for leaf in leaves(part)
    ]


def test_the_sites_menu_has_every_page() -> None:
    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in {*DOCS.rglob("*.md")} - {*DECISIONS}}
    root = {"index.md", "architecture.md", "contributing.md", "changelog.md"}
    assert len(listed) == len(set(listed))
    assert set(listed) == pages | root


@pytest.mark.parametrize("name", ["docs", "notebooks", "reference"])
def test_the_scripts_of_the_documents_are_executable(name: str) -> None:
    path = ROOT / "scripts" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


# --- command lines -------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of Bitstorm or of scripts/ in the code blocks."""
    for _, block in fences(text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            start = re.search(
                r"(?:^|&& )(?:\$ )?(?:\.venv/bin/)?((?:bitstorm|scripts/\w+)\b.*)", line
            )
            # A message of the program begins with its name and a colon.
            if start and not start[1].startswith(("bitstorm:", "bitstorm 0")):
                words = shlex.split(start[1].removeprefix("$ "), comments=True)
                yield words[: words.index(">/dev/null")] if ">/dev/null" in words else words


def check(words: list[str]) -> None:
    """Raises click's own error for a command or an option that there is not."""
    program, *arguments = words
    if program == "bitstorm":
        parse(bitstorm, arguments)
    elif program == "scripts/run":
        own = {"--live"} & {*arguments}
        if arguments[:1] == ["--csv"]:
            parse(bitstorm, ["run", *arguments])
        else:
            parse(bitstorm, ["run", *(word for word in arguments if word not in own)])
    elif program == "scripts/submit":
        at = next(n for n, word in enumerate(arguments) if (ROOT / f"jobs/{word}.py").is_file())
        parse(bitstorm, arguments[at:])
    else:
        text = (ROOT / program).read_text(encoding="utf-8")
        for option in arguments:
            # pytest's own options have one dash.
            assert not option.startswith("--") or option in text, option


def parse(entry: click.Command, arguments: list[str]) -> None:
    if isinstance(entry, click.Group):
        name, *arguments = arguments
        if name not in entry.commands:
            raise click.UsageError(f"no such command: {name}")
        parse(entry.commands[name], arguments)
    else:
        entry.make_context(entry.name, arguments)


def lines_of(path: Path) -> list[Any]:
    found = command_lines(path.read_text(encoding="utf-8"))
    return [pytest.param(words, id=f"{path.stem}: {' '.join(words)}") for words in found]


@pytest.mark.parametrize(
    "words",
    [
        case
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *GUIDE)
        for case in lines_of(path)
    ],
)
def test_every_command_line_is_known(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "bitstorm colect",
        "bitstorm stats --bar 3x",
        "scripts/test --quick",
        "scripts/run --liv",
        "scripts/submit --master local ingest --replay",
    ],
)
def test_an_unknown_command_line_is_found(line: str) -> None:
    with pytest.raises((click.ClickException, AssertionError)):
        check(line.split())


def test_the_guides_line_of_the_stage_log_has_its_fields(tmp_path: Path) -> None:
    StageLog("ingest", tmp_path / "log").write("ingest", seconds=1.0)
    operate = (DOCS / "guide" / "operate.md").read_text(encoding="utf-8")
    (shown,) = [json.loads(block) for language, block in fences(operate) if language == "json"]
    assert list(shown) == list(json.loads((tmp_path / "log").read_text()))
