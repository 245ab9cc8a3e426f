import datetime as dt
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from bitstorm.core.errors import DataError
from bitstorm.indicators.frame import (
    calculate_moving_average,
    calculate_volatility,
    prepare_bitcoin_df,
)


def index(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(texts, tz="UTC", name="timestamp")


def test_mixed_times_all_become_utc() -> None:
    given = [
        1_700_000_000_500,  # milliseconds
        1_700_000_000,  # seconds
        1_700_000_001.25,  # seconds with a fraction
        "1700000002",
        " 1700000003000 ",
        "2023-11-14T22:13:24Z",
        "2023-11-14T23:13:25+01:00",
        "2023-11-14 22:13:26",  # no offset means UTC
        "2023-11-15",
        dt.datetime(2023, 11, 14, 22, 13, 27),
        dt.datetime(2023, 11, 15, 0, 13, 28, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.date(2023, 11, 16),
        np.datetime64("2023-11-14T22:13:29"),
        pd.Timestamp("2023-11-14 17:13:30", tz="America/New_York"),
    ]
    frame = pd.DataFrame({"timestamp": given, "price_usd": np.arange(1.0, 15.0)})
    expected = pd.DataFrame(
        {"price_usd": [2.0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 9, 12]},
        index=index(
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.500",
            "2023-11-14T22:13:21.250",
            "2023-11-14T22:13:22",
            "2023-11-14T22:13:23",
            "2023-11-14T22:13:24",
            "2023-11-14T22:13:25",
            "2023-11-14T22:13:26",
            "2023-11-14T22:13:27",
            "2023-11-14T22:13:28",
            "2023-11-14T22:13:29",
            "2023-11-14T22:13:30",
            "2023-11-15",
            "2023-11-16",
        ),
    )
    assert_frame_equal(prepare_bitcoin_df(frame), expected)


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([1_704_067_200_000, 1_704_070_800_000]),
        pd.Series([1_704_067_200, 1_704_070_800]),
        pd.Series([1_704_067_200.0, 1_704_070_800.0]),
        pd.array([1_704_067_200, 1_704_070_800], dtype="Int64"),
        pd.Series(["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z"]),
        pd.array(["2024-01-01", "2024-01-01 01:00"], dtype="string"),
        pd.to_datetime(["2024-01-01 00:00", "2024-01-01 01:00"]),
        pd.to_datetime(["2024-01-01 00:00", "2024-01-01 01:00"]).astype("datetime64[s]"),
        pd.to_datetime(["2023-12-31 19:00", "2023-12-31 20:00"]).tz_localize("America/New_York"),
    ],
    ids=["ms", "s", "float s", "Int64", "iso", "string", "naive", "naive seconds", "aware"],
)
def test_every_kind_of_time_column_gives_the_same_index(times: object) -> None:
    frame = prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price": [1.0, 2.0]}))
    expected = pd.DataFrame(
        {"price_usd": [1.0, 2.0]}, index=index("2024-01-01T00:00", "2024-01-01T01:00")
    )
    assert_frame_equal(frame, expected)


def test_rows_without_a_time_or_a_positive_price_are_dropped() -> None:
    bad_times = [None, np.nan, pd.NaT, "now", "today", "12:30", "2023-13-45", "x", True, 1e300, ""]
    bad_prices = [0, -1.0, np.nan, np.inf, -np.inf, "", "a lot", None]
    rows = [
        *({"timestamp": time, "price": 5, "row": -1} for time in bad_times),
        *(
            {"timestamp": 1_700_000_000 + k, "price": p, "row": -1}
            for k, p in enumerate(bad_prices)
        ),
        {"timestamp": 1_800_000_000, "price": " 2.5 ", "row": 7},
    ]
    expected = pd.DataFrame({"price_usd": [2.5], "row": [7]}, index=index("2027-01-15T08:00:00"))
    with pytest.warns(UserWarning, match="dropped 19 of 20 rows") as caught:
        assert_frame_equal(prepare_bitcoin_df(pd.DataFrame(rows)), expected)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert "11 with no readable time; the first is row 1, with timestamp None" in said
    assert "8 with a price that is not a finite number above 0; the first is row 12" in said


def test_rows_are_sorted_and_of_equal_times_the_last_one_stays() -> None:
    frame = pd.DataFrame(
        {
            "name": ["late", "first", "second", "third"],
            "timestamp": [1_704_070_800, 1_704_067_200, 1_704_067_200_000, "2024-01-01"],
            "price_usd": [9.0, 1.0, 2.0, 3.0],
        },
        index=[3, 3, 1, 0],
    )
    expected = pd.DataFrame(
        {"name": ["third", "late"], "price_usd": [3.0, 9.0]},
        index=index("2024-01-01T00:00", "2024-01-01T01:00"),
    )
    with pytest.warns(UserWarning, match="dropped 2 of 4 rows: 2 with the time of a later row"):
        assert_frame_equal(prepare_bitcoin_df(frame), expected)


def test_preparing_changes_no_input_and_can_be_repeated() -> None:
    frame = pd.DataFrame({"timestamp": [2_000, 1_000], "price": ["2", "1"], "market_cap": [1, 2]})
    before = frame.copy(deep=True)
    prepared = prepare_bitcoin_df(frame)
    assert_frame_equal(frame, before)
    assert_frame_equal(prepare_bitcoin_df(prepared), prepared)
    prepared.iloc[0, 0] = 99.0
    assert_frame_equal(frame, before)


def test_an_empty_frame_stays_empty_with_the_right_index() -> None:
    empty = prepare_bitcoin_df(pd.DataFrame({"timestamp": [], "price": []}))
    assert empty.empty
    assert str(empty.index.dtype) == "datetime64[ns, UTC]"
    assert list(empty.columns) == ["price_usd"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"price": [1.0]}), "no column timestamp .* its columns are: price"),
        (pd.DataFrame({"timestamp": [1]}), "no column price_usd or price "),
        (pd.DataFrame(), "no column timestamp .* its columns are: none"),
        (
            pd.DataFrame([[1, 2, 3.0]], columns=["timestamp", "timestamp", "price"]),
            "the column timestamp more than once",
        ),
    ],
)
def test_a_missing_or_repeated_column_is_named(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_bitcoin_df(frame)


@pytest.fixture
def walk() -> pd.DataFrame:
    random = np.random.default_rng(3)
    prices = 40_000 * np.exp(np.cumsum(random.normal(0, 0.01, 60)))
    times = 1_704_067_200 + 3_600 * np.arange(60)
    return prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price": prices}))


@pytest.mark.parametrize("window", [1, 2, 7, 24, 60, 61])
def test_the_moving_average_equals_a_sum_by_hand(walk: pd.DataFrame, window: int) -> None:
    prices = walk["price_usd"].tolist()
    by_hand = [
        sum(prices[k + 1 - window : k + 1]) / window if k + 1 >= window else np.nan
        for k in range(len(prices))
    ]
    expected = walk.copy()
    expected[f"ma_{window}"] = by_hand
    assert_frame_equal(calculate_moving_average(walk, window), expected, rtol=1e-12)


@pytest.mark.parametrize("window", [2, 7, 24, 59, 60])
def test_the_volatility_equals_the_sample_deviation_by_hand(
    walk: pd.DataFrame, window: int
) -> None:
    prices = walk["price_usd"].tolist()
    changes = [(b - a) / a for a, b in pairwise(prices)]
    by_hand = []
    for k in range(len(prices)):
        last = changes[max(0, k - window) : k]
        if len(last) < window:
            by_hand.append(np.nan)
            continue
        mean = sum(last) / window
        by_hand.append((sum((c - mean) ** 2 for c in last) / (window - 1)) ** 0.5)
    expected = walk.copy()
    expected[f"volatility_{window}"] = by_hand
    assert_frame_equal(calculate_volatility(walk, window), expected, rtol=1e-9)


def test_the_default_window_is_seven_and_the_input_stays(walk: pd.DataFrame) -> None:
    before = walk.copy(deep=True)
    assert list(calculate_moving_average(walk).columns) == ["price_usd", "ma_7"]
    assert list(calculate_volatility(walk).columns) == ["price_usd", "volatility_7"]
    assert_frame_equal(walk, before)


def test_single_precision_prices_are_averaged_in_double() -> None:
    prices = np.asarray([60_000.004, 60_000.01, 60_000.02], np.float32)
    found = calculate_moving_average(pd.DataFrame({"price": prices}), 3)["ma_3"]
    assert found.dtype == np.float64
    assert found.iloc[2] == pytest.approx(float(prices.astype(np.float64).mean()), rel=1e-15)


def test_a_missing_price_or_an_impossible_window_is_refused(walk: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no column price_usd or price"):
        calculate_moving_average(pd.DataFrame({"x": [1]}))
    with pytest.raises(DataError, match="the window is 0; expected a whole number from 1 on"):
        calculate_moving_average(walk, 0)
    with pytest.raises(DataError, match="the window is 1; expected a whole number from 2 on"):
        calculate_volatility(walk, 1)
    for window in (True, np.bool_(True), "7", 2.0, None, -1, [7]):
        for calculate in (calculate_moving_average, calculate_volatility):
            with pytest.raises(DataError, match="expected a whole number from"):
                calculate(walk, window)  # type: ignore[arg-type]
