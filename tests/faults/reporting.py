"""Kills `report` in the write of the page and of a picture, and looks at what is left.

`python reporting.py WORKSPACE` prints one JSON object: the calls, and what was not whole. Each run
is a fork of this process, which has loaded and drawn everything once.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import prepared
from bitstorm.context import Context
from bitstorm.core import third_party_noise
from bitstorm.pipelines.report import report
from faults import sweeping
from faults.striking import Strike
from faults.sweeping import forked

OLD = b"the old one"
# Killed where the content lies on disk without its name, before and after it is synced.
STRUCK = ("dashboard.html", "price.png")
ENDS = {".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".svg": b"</svg>", ".txt": b""}


def struck(context: Context, number: int) -> list[str]:
    """A report that is killed at this call; the calls of one that is not."""
    with Strike(context.workspace.reports, "kill", number) as strike:
        report(context)
    return strike.calls


def report_files(calls: list[str]) -> list[str]:
    """The names that the calls gave."""
    return [call.rpartition("/")[2] for call in calls if call.startswith("os.rename")]


def whole(path: Path) -> bool:
    content = path.read_bytes()
    return content == OLD or content.rstrip().endswith(ENDS[path.suffix])


def main(root: Path) -> None:
    third_party_noise.install_filters()
    third_party_noise.hush_loggers()
    sweeping.DEADLINE = 120.0
    context = prepared.context(root)
    calls = struck(context, 10**6)
    written = [context.workspace.reports / name for name in report_files(calls)]
    chosen = [
        number
        for number, call in enumerate(calls, start=1)
        if any(name in call for name in STRUCK) and call.startswith(("fsync", "os.rename"))
    ]
    problems = []
    for number in chosen:
        for path in written:
            path.write_bytes(OLD)
        outcome = forked(partial(struck, context, number))
        found = [path.name for path in written if not path.exists() or not whole(path)]
        if outcome != "killed" or found:
            problems.append(f"{number} {calls[number - 1]}: {outcome}, {found}")
    # What the kills left behind goes when it is old, with the next report.
    for path in context.workspace.reports.glob(".tmp-*"):
        os.utime(path, (0, 0))
    report(context)
    left = [path.name for path in context.workspace.reports.glob(".tmp-*")]
    broken = [path.name for path in written if path.read_bytes() == OLD or not whole(path)]
    print(
        json.dumps(
            {
                "calls": [calls[number - 1] for number in chosen],
                "problems": problems,
                "left": left,
                "old": broken,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
