"""The text for Prometheus, read back by Prometheus' own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bitstorm.report.prometheus import prometheus_text

STATUS: dict[str, Any] = {
    "prices": {"rows": 8_756, "snapshot": "A"},
    "indicators": None,
    "forecasts": {
        "logged": 24,
        "scored": 20,
        "waiting": 4,
        "coverage": {80: 0.75, 90: 0.9},
        "e_values": {"information": 1.5, "accuracy": 0.25},
    },
    "waiting_batches": 1,
    "unsettled_batches": 2,
    "refused_batches": 3,
    "refused_rows": 17,
    "expected": 8_736,
    "missing": 45,
    "newest_ms": 1_795_948_320_500,
}
GRADES = {"informative": True, "more_accurate": None, "worth_its_costs": False}
NOTHING = {"prices": None, "forecasts": None, "expected": 0, "missing": 0, "newest_ms": None}


def samples(text: str) -> dict[str, float]:
    """The value of each sample by name and label: `rows prices`."""
    return {
        " ".join([sample.name.removeprefix("bitstorm_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_known_number_is_a_sample():
    assert samples(prometheus_text(STATUS, GRADES)) == {
        "newest_price_timestamp_seconds": 1_795_948_320.5,
        "rows prices": 8_756,
        "expected_slots": 8_736,
        "missing_slots": 45,
        "batches waiting": 1,
        "batches unsettled": 2,
        "batches refused": 3,
        "refused_rows": 17,
        "grade informative": 1,
        "grade worth_its_costs": 0,
        "forecasts logged": 24,
        "forecasts scored": 20,
        "forecasts waiting": 4,
        "forecast_e_value information": 1.5,
        "forecast_e_value accuracy": 0.25,
        "forecast_coverage 80": 0.75,
        "forecast_coverage 90": 0.9,
    }


def test_what_is_not_known_has_no_sample():
    assert samples(prometheus_text({**STATUS, **NOTHING}, None)) == {
        "expected_slots": 0,
        "missing_slots": 0,
        "batches waiting": 1,
        "batches unsettled": 2,
        "batches refused": 3,
        "refused_rows": 17,
    }


def test_every_family_explains_itself():
    families = list(text_string_to_metric_families(prometheus_text(STATUS, GRADES)))
    assert len(families) == 10
    assert all(family.documentation and family.type == "gauge" for family in families)
