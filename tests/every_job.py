"""As a job: runs the commands of the jobs beside it in one process, and writes what they printed.

`every_job.py OUTPUT WORKSPACE PLAN`; the plan is a JSON list of command and arguments, where `RUN`
is the newest run of the workspace. A job of its own ends its process, so one process can't run all.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from pyspark.sql import SparkSession

import bitstorm
from bitstorm.cli import exit_code


def main(output: Path, workspace: Path, plan: list[list[str]]) -> None:
    # One session for all: its executor loads TensorFlow once.
    SparkSession.builder.getOrCreate()
    done = []
    for command, *arguments in plan:
        if "RUN" in arguments:
            newest = max(path.name for path in (workspace / "checkpoints").iterdir())
            arguments = [newest if word == "RUN" else word for word in arguments]
        with redirect_stdout(io.StringIO()) as out:
            code = exit_code([command, "--workspace", str(workspace), *arguments])
        done.append({"job": command, "code": code, "stdout": out.getvalue()})
    output.write_text(json.dumps({"package": bitstorm.__file__, "done": done}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
