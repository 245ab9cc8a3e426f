"""The page's dict: what it says, against the values that it is made from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.core.schema import indicator_table
from bitstorm.report.page import (
    LOG_ROWS,
    TABLE_ROWS,
    Found,
    Grid,
    Log,
    page_data,
    series_columns,
    settings_row,
)
from bitstorm.report.page_values import DIGITS, MOST_TESTED, plain
from bitstorm.report.thinning import Level

HOUR = 3_600_000
LAST = 1_705_676_400_000  # 2024-01-19T15:00:00Z, as in the metrics
WINDOWS = (7, 24)
STATE = {
    "rows": 12_396,
    "first": "2024-01-01T00:00:00Z",
    "last": "2024-01-19T15:00:00Z",
    "missing": 4,
    "expected": 400,
    "gaps": [],
    "gap_count": 0,
    "age_ms": 7_500_000,
    "waiting_batches": 1,
    "refused_batches": 2,
    "refused_rows": 3,
}


def newest(rows: int = 30) -> pd.DataFrame:
    """The newest rows of an indicators snapshot; its first row has no indicators yet."""
    time = LAST - HOUR * np.arange(rows)[::-1]
    frame = pd.DataFrame({"timestamp": time})
    for place, field in enumerate(indicator_table(WINDOWS).stored[1:]):
        frame[field.name] = np.linspace(1, 2, rows).astype(np.float32) * (place + 1)
        if field.nullable:
            frame.loc[0, field.name] = np.nan
    frame["imputed"] = np.arange(rows) % 2 == 0
    frame["price"] = np.linspace(41_000.25, 42_123.456, rows).astype(np.float32)
    return frame


@pytest.fixture
def found(metrics: dict[str, Any], forecast: pd.DataFrame, history: pd.DataFrame) -> Found:
    columns = len(series_columns(WINDOWS, unit="USD"))
    low = np.zeros((columns, 3), np.float32)
    grid = Grid(
        "1h",
        HOUR,
        WINDOWS,
        [Level(1, LAST // HOUR - 2, low, low), Level(4, LAST // HOUR // 4 - 1, low, low)],
        newest(),
        42_000.0,
    )
    prices = pd.DataFrame({"timestamp": [LAST - HOUR, LAST], "price": [np.nan, 42_123.456]})
    return Found(
        made_ms=1_705_680_000_007,
        metrics=metrics,
        grid=grid,
        forecast=forecast,
        history=history,
        prices=prices,
        state=STATE,
        backtest=None,
        log=None,
        lineage={"batches": []},
        settings=[("grid.frequency", "1h", "default")],
    )


def logged(origins: int) -> pd.DataFrame:
    """A log of three steps from each of `origins` hours, the last one of them LAST."""
    rows = [
        {
            "timestamp": LAST + HOUR * (step - origins + 1 + origin),
            "origin": LAST + HOUR * (origin - origins + 1),
            "made_at": LAST + HOUR * (origin - origins + 1) + 60_000,
            "step": step,
            "forecast": 100.0 + origin,
            "lower_80": 99.0,
            "upper_80": 110.0 if step < 3 else np.nan,
            "actual": 105.0 + origin,
        }
        for origin in range(origins)
        for step in (1, 2, 3)
    ]
    frame = pd.DataFrame(rows)
    frame["waiting"] = frame["timestamp"] > LAST
    frame.loc[frame["waiting"], "actual"] = np.nan
    return frame


def test_the_head_says_source_verdict_and_state(found: Found, metrics: dict[str, Any]) -> None:
    page = page_data(found)
    assert page["made"] == "2024-01-19T16:00:00.007Z"
    assert (page["title"], page["unit"], page["simulated"]) == ("Bitcoin in USD", "USD", True)
    assert page["banner"] == "SIMULATED market (seed 7): not real prices"
    assert page["attribution"] is None
    assert page["verdict"]["headline"] == metrics["verdict"]
    assert page["verdict"]["grades"] == [
        {"name": "informative", "text": "No. The e-value is 1."},
        {"name": "data", "text": "made, 400 forecasts."},
    ]
    assert page["verdict"]["errors"][1] == ["RMSE", "210.50 USD", "208.75 USD"]
    assert page["now"] == {
        "price": 42_123.457,
        "price_text": "42,123.46 USD",
        "time_ms": LAST,
        "time": "2024-01-19 15:00 UTC",
        "change_24h_percent": pytest.approx(100 * (42_123.457 / 42_000 - 1), rel=1e-5),
        "change_text": "+0.29 %",
        "age_text": "2 h 5 min old",
        **STATE,
    }
    assert (page["windows"], page["step_ms"], page["frequency"]) == ([7, 24], HOUR, "1h")


def test_what_a_workspace_lacks_is_none(found: Found, metrics: dict[str, Any]) -> None:
    for step in metrics["outlook"]["steps"]:
        step["forecast"] = None
    metrics["model"]["skill"] = -math.inf
    grid = replace(found.grid, day_before=None)
    page = page_data(replace(found, state={**STATE, "age_ms": None}, grid=grid))
    assert json.loads(json.dumps(page, allow_nan=False)) == page
    assert [name for name, part in page.items() if part is None] == [
        "attribution", "backtest", "log",
    ]  # fmt: skip
    assert page["now"]["age_text"] == page["now"]["change_text"] == "n/a"
    assert [step["forecast"] for step in page["fan"]["steps"]] == [None] * 3
    assert page["fan"]["earlier"] == []
    assert page["test"]["skill"] is None


def test_levels_are_described_in_time(found: Found) -> None:
    series = page_data(found)["series"]
    assert series["levels"] == [
        {"width": 1, "first_ms": LAST - 2 * HOUR, "count": 3, "extremes": False},
        {"width": 4, "first_ms": (LAST // HOUR // 4 - 1) * 4 * HOUR, "count": 3, "extremes": True},
    ]
    assert series["columns"][2] == {
        "name": "ma_24",
        "label": "mean of the last 24",
        "group": "average",
        "unit": "USD",
    }


def test_every_drawn_column_is_an_indicator() -> None:
    names = [column["name"] for column in series_columns(WINDOWS, unit="USD")]
    stored = [field.name for field in indicator_table(WINDOWS).stored]
    assert set(names) == {*stored} - {"timestamp", "imputed", "log_return", "trend"}
    assert len(names) == len(set(names))


def test_the_fan_has_times_prices_and_what_came(found: Found) -> None:
    fan = page_data(found)["fan"]
    assert (fan["model"], fan["origin_ms"], fan["levels"]) == ("RUN-1", LAST, [80])
    assert [step["time_ms"] for step in fan["steps"]] == [LAST + n * HOUR for n in (1, 2, 3)]
    assert fan["steps"][0]["time"] == "2024-01-19 16:00 UTC"
    assert fan["steps"][2]["intervals"] == {"80": [None, None]}
    assert fan["past"] == {"timestamp": [LAST - HOUR, LAST], "price": [None, 42_123.46]}
    assert page_data(found)["volatility"]["ahead"] == [
        {"time_ms": LAST + HOUR, "sigma": 0.004},
        {"time_ms": LAST + 2 * HOUR, "sigma": 0.005},
    ]


def test_the_test_part_is_the_frame_with_the_error_saved(
    found: Found, forecast: pd.DataFrame
) -> None:
    test = page_data(found)["test"]
    assert (test["level"], test["skill"]) == (0.8, -0.0123)
    assert test["timestamp"] == forecast["timestamp"].tolist()
    for name in ("actual", "forecast", "persistence", "lower", "upper"):
        np.testing.assert_allclose(test[name], forecast[name], rtol=1e-6)
    missed = forecast["actual_log_return"] - forecast["forecast_log_return"]
    saved = (forecast["actual_log_return"] ** 2 - missed**2).cumsum()
    np.testing.assert_allclose(test["saved"], saved, rtol=1e-6)


def test_a_long_test_part_is_thinned_after_it_is_summed(
    found: Found, forecast: pd.DataFrame
) -> None:
    repeats = 3 * MOST_TESTED // len(forecast) + 1
    long = pd.concat([forecast] * repeats, ignore_index=True)
    test = page_data(replace(found, forecast=long))["test"]
    assert MOST_TESTED / 2 < len(test["timestamp"]) <= MOST_TESTED
    short = page_data(found)["test"]["saved"][-1]
    assert test["saved"][-1] == pytest.approx(repeats * short, rel=1e-5)


def test_the_training_has_its_epochs_and_the_best(found: Found) -> None:
    assert page_data(found)["training"] == {
        "epoch": [1, 2, 3, 4],
        "loss": [1.2, 1.0, 0.95, 0.93],
        "val_loss": [1.1, 0.97, 0.99, 1.02],
        "best": 2,
    }


def test_the_log_shows_what_came_and_the_newest_forecast(found: Found) -> None:
    score = {"logged": 12, "verdict": "no"}
    log = page_data(replace(found, log=Log(score, logged(4))))["log"]
    assert (log["logged"], log["verdict"], log["level"]) == (12, "no", 80)
    steps = [(row["step"], row["actual"], row["held"]) for row in log["rows"]]
    # Open outcomes of older forecasts are left out; the third step has no interval.
    assert steps == [
        (3, None, None), (2, None, None), (1, None, None),
        (3, 105.0, None), (2, 106.0, True), (1, 107.0, True),
        (2, 105.0, True), (1, 106.0, True),
        (1, 105.0, True),
    ]  # fmt: skip
    assert log["rows"][0]["time"] == "2024-01-19 18:00 UTC"
    assert log["rows"][0]["made"] == "2024-01-19 15:01 UTC"


def test_a_long_log_shows_its_newest_rows_and_earlier_fans(found: Found) -> None:
    page = page_data(replace(found, log=Log({}, logged(300))))
    assert len(page["log"]["rows"]) == LOG_ROWS
    earlier = page["fan"]["earlier"]
    # The fan itself begins at LAST.
    assert [one["origin_ms"] for one in earlier] == [LAST - n * HOUR for n in range(1, 6)]
    assert earlier[0]["steps"] == [
        {
            "time_ms": LAST + (step - 1) * HOUR,
            "step": step,
            "forecast": 398.0,
            "lower": 99.0,
            "upper": None if step == 3 else 110.0,
            "actual": 403.0 if step == 1 else None,
        }
        for step in (1, 2, 3)
    ]


def test_the_table_has_the_newest_rows_first_and_whole_float32(found: Found) -> None:
    grid = replace(found.grid, newest=newest(TABLE_ROWS + 10))
    table = page_data(replace(found, grid=grid))["table"]
    assert table["columns"][:4] == ["time", "price", "imputed", "log_return"]
    assert len(table["rows"]) == TABLE_ROWS
    first = table["rows"][0]
    assert (first[0], first[2]) == ("2024-01-19T15:00:00Z", False)
    assert np.float32(first[1]) == np.float32(42_123.456)
    oldest = page_data(found)["table"]["rows"][-1]
    assert oldest[0] == "2024-01-18T10:00:00Z"
    assert oldest[3:] == [None] * (len(oldest) - 3)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_nine_digits_tell_any_two_float32_apart(value: float) -> None:
    assert np.float32(plain(value, digits=DIGITS)) == np.float32(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_by_default_a_float_keeps_every_bit(value: float) -> None:
    assert plain(value) == value
    assert plain(np.float64(math.nan)) is plain(math.inf) is None


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("source.base_url", "https://me:pw@host/api", "https://***@host/api"),
        ("source.base_url", "https://host/api", "https://host/api"),
        ("source.base_url", None, "None"),
        (
            "spark.conf",
            {"spark.hadoop.fs.s3a.secret.key": "x", "spark.ui.port": 4040},
            "{'spark.hadoop.fs.s3a.secret.key': '***', 'spark.ui.port': 4040}",
        ),
        ("spark.conf", {"fs.s3a.access.key": "x"}, "{'fs.s3a.access.key': '***'}"),
        ("some.api_key", "x", "***"),
        (
            "spark.conf",
            {"spark.driver.extraJavaOptions": "-Djavax.net.ssl.trustStorePassword=x"},
            "{'spark.driver.extraJavaOptions': '***'}",
        ),
    ],
)
def test_settings_show_no_secret(key: str, value: Any, shown: str) -> None:
    assert settings_row(key, value, "--set") == (key, shown, "--set")
