"""The pages of the guide, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
# In the order in which a reader goes through them.
PAGES = [
    DOCS / "guide" / f"{name}.md"
    for name in (
        "collect",
        "import",
        "data-sets",
        "indicators",
        "train-and-judge",
        "operate",
        "cluster",
        "notebooks",
    )
]


def fences(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of each code block."""
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


@dataclass(frozen=True)
class Step:
    """A command of the guide, after `$ `, and the lines that the page shows after it."""

    words: list[str]
    shown: str

    @property
    def code(self) -> int:
        """The exit code that the page promises."""
        return 2 if self.shown.startswith("bitstorm: ") else 0


def steps() -> Iterator[Step]:
    for path in PAGES:
        for language, block in fences(path.read_text(encoding="utf-8")):
            if language == "console":
                for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                    line, _, shown = part.partition("\n")
                    yield Step(shlex.split(line), shown)
