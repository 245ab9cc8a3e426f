"""Training runs on disk: `checkpoints/RUN/` with `best.keras`, `run.json` and `history.csv`."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from bitstorm.errors import ModelError

RECORD = "run.json"
BEST = "best.keras"
HISTORY = "history.csv"


@dataclass(frozen=True)
class Run:
    """A finished run; `record` is the content of its `run.json`."""

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name


def new_folder(checkpoints: Path) -> Path:
    """An empty folder for a run, named by the time (UTC), so that names sort by age."""
    folder = checkpoints / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, record: dict[str, Any]) -> Run:
    """Write the record; a run without one was broken off and does not count."""
    draft = folder / f".{RECORD}"
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / RECORD)
    return Run(folder, record)


def newest(checkpoints: Path, *, name: str | None = None) -> Run:
    """The newest finished run, or the named one. Raises ModelError where there is none."""
    records = sorted(checkpoints.glob(f"*/{RECORD}"))
    if name is not None:
        records = [path for path in records if path.parent.name == name]
    if not records:
        what = f"no finished run {name}" if name else "no finished run"
        raise ModelError(f"there is {what} in {checkpoints}: run `bitstorm train` first")
    path = records[-1]
    try:
        return Run(path.parent, json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ModelError(f"{path} cannot be read ({error}): train again") from None


def load_network(run: Run) -> Any:
    """The run's best network. Raises ModelError where it cannot be loaded."""
    import keras

    try:
        return keras.saving.load_model(run.folder / BEST, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise ModelError(
            f"the network of run {run.name} cannot be loaded ({str(error).splitlines()[0]}): "
            "train again"
        ) from None
