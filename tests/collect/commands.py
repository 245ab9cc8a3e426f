"""A workspace and a source for commands that run in this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitstorm.collect.coingecko.error_responses import KEY_VARIABLE
from command import Done
from command import command as run_command
from simulator.watched import Point

CANARY = "CG-canary0123456789abcdef"


@dataclass(frozen=True)
class Desk:
    """A workspace and what is set; every run starts from what lies on disk."""

    workspace: Path
    settings: Sequence[str]

    def run(self, command: str, *options: str, settings: Sequence[str] = ()) -> Done:
        chosen = [part for s in (*self.settings, *settings) for part in ("--set", s)]
        where = ["--workspace", str(self.workspace), "--log-file", str(self.workspace / "log.txt")]
        return run_command(command, *options, *where, *chosen)

    def landed(self) -> list[Point]:
        """Every row of every batch, by time; what is there twice comes twice."""
        rows = []
        for path in sorted((self.workspace / "landing").glob("*.csv")):
            for line in path.read_text().splitlines()[1:]:
                stamp, *numbers = line.split(",")
                price, cap, volume, _ = (float(n) if n else None for n in numbers)
                assert price is not None
                rows.append((int(stamp), price, cap, volume))
        return sorted(rows)

    def holding(self, secret: str) -> list[Path]:
        """The files under the workspace that have the text in them or in their names."""
        return [
            path
            for path in self.workspace.rglob("*")
            if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes())
        ]


@contextmanager
def desk_for(
    base_url: str, folder: Path, patch: pytest.MonkeyPatch, *settings: str
) -> Iterator[Desk]:
    """A desk whose source is this one, with a Demo key that must turn up nowhere."""
    with patch.context() as environ:
        environ.setenv(KEY_VARIABLE, CANARY)
        given = ("source.mode=coingecko", f"source.base_url={base_url}", "source.plan=demo")
        yield Desk(folder / "workspace", (*given, "source.retries=0", *settings))
