"""As a job: the commands of one Spark session; writes what came of them as JSON.

`cluster_session.py OUTPUT BASE NAME` ingests BASE/NAME and computes its indicators.
`cluster_session.py OUTPUT BASE NAME FORBIDDEN` does the same on a cluster whose executors have no
Python while the file FORBIDDEN is there, and more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bitstorm
from bitstorm.core.errors import SparkFailure
from bitstorm.core.schema import PRICES
from bitstorm.spark.session import running_session
from bitstorm.store import snapshots
from bitstorm.store.seal import Month, in_threads
from bitstorm.store.seal_tasks import in_tasks

MINUTES = {"grid.frequency": "1m", "indicators.windows": [7, 60]}


def digest(folder: Path) -> str:
    return snapshots.required(folder).manifest.digest


def counts(result: Any) -> dict[str, int]:
    names = ("read", "accepted", "duplicate", "superseded", "refused", "replaced", "rows")
    return {name: getattr(result, name) for name in names}


def without_python(base: Path, small: bitstorm.Workspace) -> dict[str, Any]:
    """Every command that needs no Python on the executors."""
    found: dict[str, Any] = {"first": counts(small.ingest())}
    for name in ("later.csv.json", "later.csv"):
        (base / name).rename(small.path / "landing" / name)
    found["merged"] = counts(small.ingest())
    mild = {"ingest.rules.volume_24h_readable": "warn"}
    patient = bitstorm.open_workspace(small.path, mild, quiet=True)
    found["replayed"] = counts(patient.ingest(replay_rejects=True))
    retracted = small.retract("later.csv", reason="a test")
    found["retracted"] = {"removed": retracted.removed, "restored": retracted.restored}
    found["digest"] = digest(small.path / "prices")
    with_indicators = bitstorm.open_workspace(base / "local-2", MINUTES, quiet=True)
    found["stats"] = with_indicators.stats(bars=3).facts()
    return found


def sealed_as_published(session: Any, root: Path) -> bool:
    """Whether tasks on the executors find the months as the driver's threads and the manifest."""
    snapshot = snapshots.required(root)
    kept, lineage = snapshot.manifest, root / "lineage" / snapshot.id

    def paths(files: Any, month: str) -> tuple[str, ...]:
        return tuple(file.path for file in files if file.month == month)

    months = [
        Month(m, snapshot.folder, paths(kept.files, m), lineage, paths(kept.lineage, m))
        for m in sorted(kept.months)
    ]
    found = list(in_tasks(session, PRICES, months))
    digests = {month.name: checked.digest for month, checked in zip(months, found, strict=True)}
    return digests == kept.months and found == list(in_threads(PRICES, months))


def main(output: Path, base: Path, name: str, forbidden: Path | None = None) -> None:
    workspace = bitstorm.open_workspace(base / name, MINUTES, quiet=True)
    found: dict[str, Any] = {"package": bitstorm.__file__, "ingested": counts(workspace.ingest())}
    session = running_session()
    assert session is not None
    found["settings"] = dict(session.sparkContext.getConf().getAll())
    found["ui"] = session.sparkContext.uiWebUrl
    if forbidden is not None:
        small = bitstorm.open_workspace(base / "small", quiet=True)
        found["without_python"] = without_python(base, small)
        found["called"] = forbidden.with_name("calls").exists()
        found["no_python"] = str(workspace.doctor(cluster=True).checks[-1])
        try:
            workspace.indicators()
        except SparkFailure as error:
            found["refused"] = str(error)
        forbidden.unlink()
    workspace.indicators()
    found["prices"] = digest(workspace.path / "prices")
    found["indicators"] = digest(workspace.path / "indicators")
    if forbidden is not None:
        checks = workspace.doctor(cluster=True).checks
        found["sealed"] = sealed_as_published(session, workspace.path / "prices")
        found["doctor"] = [[check.name, check.state, str(check)] for check in checks]
    output.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(Path, sys.argv[4:]))
