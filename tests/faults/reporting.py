"""Kills `report` at each file-system call of the page and of a picture, and looks at what is left.

`python reporting.py WORKSPACE` prints one JSON object: the calls, and what was not whole. Each run
is a fork of this process, which has loaded and drawn everything once.
"""

from __future__ import annotations

import json
import os
import sys
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
ENDS = {".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".svg": b"</svg>", ".txt": b""}


def struck(context: Context, number: int, calls: Path) -> None:
    with calls.open("wb") as told:
        try:
            with Strike(context.workspace.reports, "kill", number, told=told.fileno()):
                report(context)
        finally:
            Strike._armed = None


def whole(path: Path) -> bool:
    content = path.read_bytes()
    return content == OLD or content.rstrip().endswith(ENDS[path.suffix])


def main(root: Path) -> None:
    third_party_noise.install_filters()
    third_party_noise.hush_loggers()
    sweeping.DEADLINE = 120.0
    context, calls = prepared.context(root), root / "calls"
    written = [context.workspace.reports / name for name in report(context).files]
    assert not forked(lambda: struck(context, 10**6, calls))
    seen = calls.read_text().splitlines()
    chosen = [
        number
        for number, call in enumerate(seen, start=1)
        if any(name in call for name in ("dashboard.html", "price."))
    ]
    problems = []
    for number in chosen:
        for path in written:
            path.write_bytes(OLD)
        outcome = forked(lambda number=number: struck(context, number, calls))  # type: ignore[misc]
        broken = [path.name for path in written if not path.exists() or not whole(path)]
        if outcome != "killed" or broken:
            problems.append(f"{number} {seen[number - 1]}: {outcome}, {broken}")
    # What the kills left behind goes when it is old, with the next report.
    for path in context.workspace.reports.glob(".tmp-*"):
        os.utime(path, (0, 0))
    report(context)
    left = [path.name for path in context.workspace.reports.glob(".tmp-*")]
    whole_now = [path.name for path in written if path.read_bytes() == OLD or not whole(path)]
    print(
        json.dumps(
            {
                "calls": [seen[number - 1] for number in chosen],
                "problems": problems,
                "left": left,
                "old": whole_now,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
