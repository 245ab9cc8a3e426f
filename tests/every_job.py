"""As a job: runs commands in one process and one session, and writes what they printed.

`every_job.py OUTPUT FOLDER PLAN`; the plan is a JSON list of steps, which run in FOLDER in this
order: the arguments of a command, or a file's name and its text. A job of its own ends its process,
so one process can't run all.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from pyspark.sql import SparkSession

import bitstorm
from bitstorm.cli import exit_code


def in_this_workspace(word: str) -> str:
    """The guide's names of snapshots and runs are of another workspace."""
    if re.fullmatch(r"\d{8}-[0-9a-f]{12}", word):
        return min(path.name for path in Path("workspace/prices/snapshots").iterdir())
    if re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", word):
        return max(path.name for path in Path("workspace/checkpoints").iterdir())
    return word


def main(output: Path, folder: Path, plan: list[dict[str, list[str]]]) -> None:
    # One session for all: its executor loads TensorFlow once.
    SparkSession.builder.getOrCreate()
    os.chdir(folder)
    done = []
    for step in plan:
        if "file" in step:
            name, text = step["file"]
            Path(name).write_text(text, encoding="utf-8")
            continue
        words = [in_this_workspace(word) for word in step["words"]]
        began = time.monotonic()
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = exit_code(words)
        seconds = round(time.monotonic() - began, 1)
        said = {"out": out.getvalue(), "err": err.getvalue()}
        done.append({"words": words, "code": code, "seconds": seconds, **said})
    output.write_text(json.dumps({"package": bitstorm.__file__, "done": done}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
