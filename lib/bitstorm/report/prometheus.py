"""The state of a workspace in Prometheus' text format, for the textfile collector of node_exporter.

Names and units follow Prometheus' rules (prometheus.io/docs/practices/naming): seconds, and times
instead of ages. A value that is not known has no sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GRADES = ("informative", "more_accurate", "less_accurate", "worth_its_costs")


def prometheus_text(status: Mapping[str, Any], grades: Mapping[str, Any] | None) -> str:
    """The samples of `status` (the fields of `pipelines.status.Status`) and of the `grades` in
    metrics.json, None without a forecast."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"bitstorm_{name}", text, registry=registry).set(value)

    def gauges(name: str, text: str, label: str, values: Mapping[str, float | None]) -> None:
        family = Gauge(f"bitstorm_{name}", text, [label], registry=registry)
        for key, value in values.items():
            if value is not None:
                family.labels(key).set(value)

    newest = status["newest_ms"]
    gauge(
        "newest_price_timestamp_seconds",
        "Unix time of the newest price.",
        None if newest is None else newest / 1000,
    )
    sets = {name: (status[name] or {}).get("rows") for name in ("prices", "indicators")}
    gauges("rows", "Rows of the newest snapshot.", "data_set", sets)
    gauge("expected_slots", "Slots that should have a price.", status["expected"])
    gauge("missing_slots", "Expected slots without a price.", status["missing"])
    states = {name: status[f"{name}_batches"] for name in ("waiting", "unsettled", "refused")}
    gauges("batches", "Batches in the landing folder.", "state", states)
    gauge("refused_rows", "Refused rows of all ingested batches.", status["refused_rows"])
    known = {} if grades is None else {name: grades.get(name) for name in _GRADES}
    gauges("grade", "Grade of the last forecast: 1 reached, 0 not reached.", "grade", known)
    log = status["forecasts"] or {}
    counts = {name: log.get(name) for name in ("logged", "scored", "waiting")}
    gauges("forecasts", "Forecasts in the log.", "state", counts)
    evidence = log.get("e_values") or {}
    gauges("forecast_e_value", "Evidence of the log for step 1; 20 is a grade.", "test", evidence)
    shares = {str(level): share for level, share in (log.get("coverage") or {}).items()}
    help_text = "Share of outcomes that the interval of this level in percent held."
    gauges("forecast_coverage", help_text, "level", shares)
    return generate_latest(registry).decode()
