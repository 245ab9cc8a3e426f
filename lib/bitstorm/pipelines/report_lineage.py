"""What the dashboard shows of the lineage: batches → snapshots → run → forecast, with hashes."""

from __future__ import annotations

from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import ModelError
from bitstorm.model import runs
from bitstorm.report.page import BATCHES
from bitstorm.report.summary import Metrics
from bitstorm.store import manifest as manifests
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


def read_lineage(context: Context, metrics: Metrics) -> dict[str, Any]:
    """The chain of the forecast: the newest batches of its prices, its snapshots, its run."""
    workspace = context.workspace
    prices = snapshots.known(workspace.prices, metrics["snapshot"]["prices"])
    indicators = snapshots.known(workspace.indicators, metrics["snapshot"]["indicators"])
    log = snapshots.current(workspace.forecasts)
    try:
        record = runs.find(workspace.checkpoints, metrics["run"]).record
    except ModelError:
        record = {}
    weights = [sha for name, sha in record.get("files", {}).items() if name.startswith("best")]
    return {
        "batches": [] if prices is None else _newest_batches(prices),
        "batch_count": None if prices is None else (prices.manifest.ledger or {}).get("batches"),
        "prices": _snapshot(metrics["snapshot"]["prices"], prices),
        "indicators": _snapshot(metrics["snapshot"]["indicators"], indicators),
        "run": {
            "name": metrics["run"],
            "weights_sha256": weights[0] if weights else None,
            **{name: record.get(name) for name in ("created_at", "backend", "indicators")},
        },
        "forecast": _snapshot(None if log is None else log.id, log),
    }


def _snapshot(identity: str | None, found: Snapshot | None) -> dict[str, Any]:
    """ID, digest, rows and time; None where the snapshot is gone."""
    manifest = None if found is None else found.manifest
    return {
        "id": identity,
        "digest": manifest and manifest.digest,
        "rows": manifest and manifest.rows,
        "committed": manifest and manifest.created_at,
    }


def _newest_batches(prices: Snapshot) -> list[dict[str, Any]]:
    """The batches of the newest commits up to this one, the newest first."""
    numbers = [n for n in manifests.sequences(prices.root) if n <= prices.manifest.sequence]
    found: dict[str, dict[str, Any]] = {}
    for number in numbers[: -BATCHES - 1 : -1]:
        manifest = snapshots.readable_manifest(prices.root, number)
        for sha, tally in {} if manifest is None else manifest.batches.items():
            found.setdefault(sha, {"name": tally["name"], "sha256": sha, "rows": tally["read"]})
        if len(found) >= BATCHES:
            break
    return list(found.values())[:BATCHES]
