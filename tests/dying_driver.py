"""As a job: a command whose driver dies, with all its processes, before a step of its commit.

`dying_driver.py STEP COMMAND …`: `staging` is the folder of the staged batches, `manifest` makes
the snapshot the newest, and `current` is the hint that names it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

from bitstorm.cli import main

# The audit event of the step, the number of its path among the arguments, and the path.
STEPS = {
    "staging": ("os.mkdir", 0, r"/staging/[0-9a-f]+$"),
    "manifest": ("os.link", 1, r"/manifests/[0-9]{8}\.json$"),
    "current": ("os.rename", 1, r"/prices/CURRENT$"),
}


def die_before(step: str) -> None:
    wanted, place, path = STEPS[step]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == wanted and re.search(path, os.fsdecode(arguments[place])):
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    if sys.argv[1] in STEPS:
        die_before(sys.argv[1])
    main(sys.argv[2:])
