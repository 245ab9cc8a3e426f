"""Prints `databricks/requirements.txt`: the lock without Spark and Jupyter, for `pip --no-deps`.

    .venv/bin/python scripts/lib/databricks_requirements.py > databricks/requirements.txt

Databricks brings its own Spark. petastorm and Bitstorm's wheel require pyspark, so that pip would
install a second one: the list is complete instead, and pip follows no requirement. The dependencies
are those that the installed packages state, on Linux with Python 3.12.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"pyspark", "jupyterlab", "nbclient", "ipykernel"}
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
HEAD = """\
# What the notebooks install on Databricks: requirements.txt of the project without Spark, which the
# runtime has, and without Jupyter. Complete, for `pip install --no-deps`: petastorm requires
# pyspark, and pip could install a second one. pyarrow 14 and numpy 1 replace the runtime's own,
# because petastorm 0.13.1 can use no later ones. Written by scripts/lib/databricks_requirements.py.
"""


def locked() -> dict[str, str]:
    """The versions of `requirements.txt` by name."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def roots() -> set[str]:
    """The names in `requirements.in`, without those that are left out."""
    text = (ROOT / "requirements.in").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+)", text, re.MULTILINE)) - LEFT_OUT


def closure(names: set[str]) -> set[str]:
    """These packages and all that they require on the target, except those that are left out."""
    found: set[tuple[str, str]] = set()
    todo = {(canonicalize_name(name), "") for name in names}
    while todo:
        name, extra = one = todo.pop()
        found.add(one)
        needed = [Requirement(text) for text in metadata.requires(name) or ()]
        for wanted in needed:
            if wanted.marker is None or wanted.marker.evaluate({**TARGET, "extra": extra}):
                there = canonicalize_name(wanted.name)
                if there not in LEFT_OUT:
                    todo |= {(there, other) for other in ("", *wanted.extras)} - found
    return {name for name, _ in found}


def lines() -> str:
    """The text of the file."""
    versions = locked()
    return HEAD + "".join(f"{name}=={versions[name]}\n" for name in sorted(closure(roots())))


if __name__ == "__main__":
    print(lines(), end="")
