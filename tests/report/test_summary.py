import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.report.summary import mark_of, summary_text, write_metrics


def test_the_summary_says_every_number_of_the_metrics(metrics: dict[str, Any]) -> None:
    text = summary_text(metrics)
    for part in (
        "*** SIMULATED market (seed 7): not real prices ***",
        "first observation  2024-01-01 00:00 UTC",
        "observations       12,396",
        "grid points        400 of 1h",
        "carried forward    4",
        "latest price       42,123.46 USD at 2024-01-19 15:00 UTC",
        "change in 24 h     -1.23 %",
        "epochs         4, best 2",
        "Not distinguishable from 'the price stays as it is'.",
        "Informative: No. The e-value is 1.",
        "Data: made, 400 forecasts.",
        "The 80 % interval held 79.0 % of the test part's outcomes.",
        "2024-01-19 16:00 UTC  42,130.50 USD  41,900.25 USD to 42,360.75 USD",
        "2024-01-19 18:00 UTC  42,140.50 USD                      n/a to n/a",
        "Forecast by RUN-1: promoted: not less accurate than persistence.",
        "prices snapshot      000002-PRICES",
        "indicators snapshot  000002-INDICATORS",
        "training run         RUN-1",
        "source               simulated:7 (the built-in simulated market)",
    ):
        assert part in text, part


def test_errors_stand_beside_those_of_persistence_in_a_table(metrics: dict[str, Any]) -> None:
    lines = summary_text(metrics).splitlines()
    start = lines.index("Errors on the test part") + 2
    assert lines[start : start + 7] == [
        "                        model  the price stays as it is",
        "RMSE               210.50 USD                208.75 USD",
        "MAE                150.25 USD                149.50 USD",
        "RMSE, log return       0.0041                     0.004",
        "MAE, log return        0.0031                     0.003",
        "skill, log return     -0.0123                         0",
        "skill, USD            -0.0133                         0",
    ]


def test_real_data_has_the_attribution_and_no_simulation_mark(metrics: dict[str, Any]) -> None:
    text = summary_text({**metrics, "source": "coingecko", "simulated": False})
    assert text.endswith("\nData provided by CoinGecko (https://www.coingecko.com)\n")
    assert "simulated" not in text.lower()


def test_what_is_unknown_reads_so(metrics: dict[str, Any]) -> None:
    metrics["latest"]["change_24h_percent"] = None
    metrics["model"]["skill"] = -math.inf
    del metrics["outlook"], metrics["training"], metrics["grades"]
    text = summary_text(metrics)
    assert "change in 24 h     n/a" in text
    assert "skill, log return         n/a" in text
    assert "Forecast by n/a: n/a." in text
    assert "None" not in text
    assert not any(word in text.split() for word in ("nan", "-inf", "inf"))


def test_metrics_are_written_as_strict_json_with_sorted_keys(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    metrics["model"]["skill"] = float("nan")
    metrics["model"]["skill_usd"] = -np.inf
    metrics["span"]["rows"] = np.int64(12)
    metrics["model"]["mae_usd"] = np.float32(0.5)
    metrics["windows"] = (7, np.nan)
    path = tmp_path / "reports" / "metrics.json"
    write_metrics(path, metrics)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = path.read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=refuse)
    assert read["model"]["skill"] is None
    assert read["model"]["skill_usd"] is None
    assert read["model"]["mae_usd"] == 0.5
    assert read["span"]["rows"] == 12
    assert read["windows"] == [7, None]
    assert read["latest"] == metrics["latest"]
    assert list(read) == sorted(metrics)
    assert text.endswith("}\n")
    assert [found.name for found in path.parent.iterdir()] == ["metrics.json"]


def test_the_mark_is_that_of_the_metrics(metrics: dict[str, Any]) -> None:
    mark = mark_of(metrics)
    assert (mark.source, mark.coin, mark.vs_currency) == ("simulated:7", "bitcoin", "usd")
