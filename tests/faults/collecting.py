"""Runs `bitstorm collect` with a strike at its first, second, … file-system call.

`python collecting.py KIND[,KIND …] URL FOLDER` gives each run a workspace of its own in
FOLDER/KIND, strikes it, runs it once more without a strike, and prints one JSON object: by kind a
list, which has for each run how it and its restart ended and which call was struck. Each run is a
fork of this process: everything is loaded once. The key comes from the environment, as a user's
does.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bitstorm.pipelines.collect  # noqa: F401 - loaded before the forks, which are many
from bitstorm.cli import main
from faults.striking import Strike

THROUGH = 200
MOST = 200


def collect(url: str, workspace: Path, log: Path) -> int:
    """One `bitstorm collect` in this process; its exit code."""
    try:
        main(
            [
                *("collect", "--workspace", str(workspace), "--log-file", str(log)),
                *("--set", "source.mode=coingecko", "--set", f"source.base_url={url}"),
                *("--set", "source.plan=demo", "--set", "source.retries=0"),
                *("--set", "source.calls_per_minute=1000"),
                *("--set", "source.monthly_credits=1000"),
            ]
        )
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def forked(kind: str, number: int, url: str, folder: Path) -> tuple[int, str]:
    """Exit code (negative: the signal) of a run struck at its `number`-th call (0: never), THROUGH
    more when the strike did not fall; and the call that it fell on."""
    name = f"{number or 'again'}"
    output = folder / f"output-{name}"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        code = 70
        try:
            with Strike(folder / "w", kind, number or 10**9, told=writer) as strike:
                code = collect(url, folder / "w", folder / "log")
            code += 0 if strike.fell else THROUGH
        except BaseException:  # noqa: BLE001 - the child must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as told:
        calls = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), calls[number - 1] if 0 < number <= len(calls) else ""


def swept(kind: str, url: str, folder: Path) -> list[dict[str, object]]:
    runs: list[dict[str, object]] = []
    with Strike(folder / "nowhere", kind, 1):
        pass  # its hooks are in place before the first fork
    for number in range(1, MOST):
        own = folder / f"{number:03d}"
        own.mkdir(parents=True)
        code, call = forked(kind, number, url, own)
        between = sorted(str(p.relative_to(own)) for p in own.rglob("*") if p.is_file())
        again, _ = forked(kind, 0, url, own)
        runs.append({"ended": code, "call": call, "between": between, "again": again - THROUGH})
        if code >= THROUGH:
            return runs
    raise AssertionError(f"no end after {MOST} runs")


if __name__ == "__main__":
    kinds, url, folder = sys.argv[1:]
    print(json.dumps({kind: swept(kind, url, Path(folder, kind)) for kind in kinds.split(",")}))
