"""As a job: ingest, indicators, a replay and a fold in one Spark session, while a test strikes.

`failing_session.py OUTPUT BASE STEP …` takes the workspace BASE/struck. Before each step it waits
until both executors are there and the file BASE/STEP.go is. Then it computes the indicators of the
minutes and the fold again, without a wait. OUTPUT gets the digest of each result.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import bitstorm
from bitstorm.backtest.tasks import run_folds
from bitstorm.core.settings import Spark
from bitstorm.spark.session import spark_session
from bitstorm.store import snapshots

HOURS = {"grid.frequency": "1h", "indicators.windows": [7, 30]}
# More than a block of them.
MINUTES = {"grid.frequency": "1m", "indicators.windows": [7, 60]}
# The refused rows pass this.
MILD = {"ingest.rules.volume_24h_readable": "warn"}


def digest(workspace: Path, name: str) -> str:
    return snapshots.required(workspace / name).manifest.digest


def indicators(workspace: Path, settings: dict[str, Any]) -> str:
    bitstorm.open_workspace(workspace, settings, quiet=True).indicators()
    return digest(workspace, "indicators")


def ingest(workspace: Path, settings: dict[str, Any], *, replay: bool = False) -> str:
    bitstorm.open_workspace(workspace, settings, quiet=True).ingest(replay_rejects=replay)
    return digest(workspace, "prices")


def fold(base: Path) -> str:
    """Of the fold's Parquet columns: the file's metadata have the seconds that it took."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    work, folds = pickle.loads((base / "folds").read_bytes())
    with spark_session(app_name="fold", spark=Spark()) as session:
        (done,) = run_folds(session, work, folds)
    table = pq.read_table(pa.BufferReader(done.content)).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def main(output: Path, base: Path, *steps: str) -> None:
    with spark_session(app_name="failures", spark=Spark()) as session:
        tracker = session.sparkContext._jsc.sc().statusTracker()

        def wait(step: str) -> None:
            # The driver is one of them.
            while len(tracker.getExecutorInfos()) < 3:
                time.sleep(0.05)
            (base / f"{step}.ready").touch()
            while not (base / f"{step}.go").exists():
                time.sleep(0.01)

        struck, calm = base / "struck", base / "calm"
        known = {
            "ingest": lambda: ingest(struck, {}),
            "hours": lambda: indicators(struck, HOURS),
            "minutes": lambda: indicators(struck, MINUTES),
            "replay": lambda: ingest(struck, MILD, replay=True),
            "fold": lambda: fold(base),
        }
        found = {}
        for step in steps:
            wait(step)
            found[step] = known[step]()
            if step == "ingest":
                shutil.copytree(struck, calm)
        again = {"minutes": indicators(calm, MINUTES), "fold": fold(base)}
        output.write_text(json.dumps({"struck": found, "calm": again}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
