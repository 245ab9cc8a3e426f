"""`prepare_bitcoin_df` reads what `import` reads, and says which rows it dropped."""

import re
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bitstorm.core.errors import DataError
from bitstorm.indicators.frame import (
    calculate_moving_average,
    calculate_volatility,
    prepare_bitcoin_df,
)

SECONDS = np.array([1_707_786_123, 1_707_872_523])  # 2024-02-13T01:02:03Z, a day later
MOMENTS = ["2024-02-13T01:02:03Z", "2024-02-14T01:02:03Z"]
DAYS = ["2024-02-13", "2024-02-14"]
HOURS = ["2024-02-13T13:00Z", "2024-02-14T01:00Z"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (SECONDS * 10**6, MOMENTS),
        (SECONDS * 10**9, MOMENTS),
        (SECONDS * 1e6, MOMENTS),
        (SECONDS * 1e9, MOMENTS),
        ([str(value) for value in SECONDS * 10**6], MOMENTS),
        (pd.array(SECONDS * 10**9, dtype="Int64"), MOMENTS),
        ((SECONDS * 10**6).astype(np.uint64), MOMENTS),
        ([int(SECONDS[0]), int(SECONDS[1]) * 10**9], MOMENTS),
        (["2024-02-13 01:02:03 UTC", "2024-02-14 01:02:03 GMT"], MOMENTS),
        (["13 Feb 2024 01:02:03", "14 Feb 2024 01:02:03"], MOMENTS),
        ([20240213010203, 20240214010203], MOMENTS),
        (pd.to_datetime(MOMENTS).astype("datetime64[us, UTC]"), MOMENTS),
        (pd.array(pd.to_datetime(MOMENTS), dtype="timestamp[ms, UTC][pyarrow]"), MOMENTS),
        (["Feb 13, 2024", "Feb 14, 2024"], DAYS),
        (["02/13/2024", "02/14/2024"], DAYS),
        (["13/02/2024", "14/02/2024"], DAYS),
        (["13.02.2024", "14.02.2024"], DAYS),
        (["2024.02.13", "2024.02.14"], DAYS),
        (["2024/02/13", "2024/02/14"], DAYS),
        (["20240213", "20240214"], DAYS),
        ([20240213, 20240214], DAYS),
        (pd.Categorical(DAYS), DAYS),
        (["2/13/24 1:00 PM", "2/14/24 1:00 AM"], HOURS),
        (["2024-02-13 01-PM", "2024-02-14 01-AM"], HOURS),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_times_of_every_form_are_read_right(times: Any, expected: list[str]) -> None:
    found = prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price": [1.0, 2.0]}))
    assert found.index.tolist() == pd.to_datetime(expected, utc=True, format="ISO8601").tolist()


def test_days_of_a_month_decide_the_order_of_the_whole_column() -> None:
    times = ["01/05/2024", "02/05/2024", "31/05/2024"]
    found = prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price": [1.0, 2.0, 3.0]}))
    assert [day.strftime("%Y-%m-%d") for day in found.index] == [
        "2024-05-01",
        "2024-05-02",
        "2024-05-31",
    ]


@pytest.mark.parametrize(
    "times",
    [
        ["01/05/2024", "02/05/2024"],
        ["01.05.2024", "02.05.2024"],
        ["1-5-2024", "2-5-2024"],
        ["01/05/24 10:30", "02/05/24 10:30"],
        ["13/05/2024", "05/14/2024"],
    ],
)
def test_an_unknown_order_of_day_and_month_is_named(times: list[str]) -> None:
    frame = pd.DataFrame({"timestamp": times, "price": [1.0, 2.0]})
    with pytest.warns(UserWarning, match="day and month can be exchanged") as caught:
        assert prepare_bitcoin_df(frame).empty
    assert len(caught) == 1
    assert f"the first is row 1, with timestamp {times[0]!r}" in str(caught[0].message)
    assert re.search(r"the format %\S+.* or %", str(caught[0].message))
    assert "dropped 2 of 2 rows" in str(caught[0].message)


def test_serial_dates_are_read_and_said() -> None:
    for times in ([45335, 45336.5], ["45335", "45336.5"]):
        frame = pd.DataFrame({"timestamp": times, "price": [1.0, 2.0]})
        with pytest.warns(UserWarning, match="serial dates of Excel"):
            found = prepare_bitcoin_df(frame)
        assert found.index.tolist() == [
            pd.Timestamp("2024-02-13", tz="UTC"),
            pd.Timestamp("2024-02-14 12:00", tz="UTC"),
        ]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (["40,000.00", "41,000.50"], [40_000.0, 41_000.5]),
        (["$40000", "$41000.50"], [40_000.0, 41_000.5]),
        (["$40,000.00", "41,000.50 $"], [40_000.0, 41_000.5]),
        (["40.000,00", "41.000,50"], [40_000.0, 41_000.5]),
        (["40000,00", "41000,50"], [40_000.0, 41_000.5]),
        (["1.234", "41.000,50"], [1_234.0, 41_000.5]),
        (["€40 000", "41 000.50 €"], [40_000.0, 41_000.5]),
        (["40'000.00", "41'000.50"], [40_000.0, 41_000.5]),
        (["40\u00a0000,00", "41\u202f000,50"], [40_000.0, 41_000.5]),
        (["1,234,567.5", 41_000.5], [1_234_567.5, 41_000.5]),
        (["4e4", " 41000.5 "], [40_000.0, 41_000.5]),
        ([Decimal("40000"), 41_000.5], [40_000.0, 41_000.5]),
        (pd.Categorical(["40,000", "41,000.5"]), [40_000.0, 41_000.5]),
        (pd.array(["40,000", "41,000.5"], dtype="string"), [40_000.0, 41_000.5]),
        (pd.array([40_000, 41_001], dtype="Int64"), [40_000.0, 41_001.0]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_prices_of_every_form_are_read_right(prices: Any, expected: list[float]) -> None:
    frame = pd.DataFrame({"timestamp": SECONDS, "price": prices})
    assert prepare_bitcoin_df(frame)["price_usd"].tolist() == expected
    assert calculate_moving_average(frame, 2)["ma_2"].iloc[1] == sum(expected) / 2


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("price", "a lot", "a price that is not a finite number above 0"),
        ("price", "USD 5", "a price that is not a finite number above 0"),
        ("price", [1, 2], "a price that is not a finite number above 0"),
        ("price", np.nan, "a price that is not a finite number above 0"),
        ("price", "-$5", "a price that is not a finite number above 0"),
        ("timestamp", "12:30", "no readable time"),
        ("timestamp", "soon", "no readable time"),
        ("timestamp", "", "no readable time"),
        ("timestamp", pd.Timedelta(1), "no readable time"),
        ("timestamp", 10.0**30, "no readable time"),
        ("timestamp", int(SECONDS[0]), "the time of a later row"),
    ],
    ids=str,
)
def test_a_dropped_row_is_named_with_its_reason(column: str, value: Any, reason: str) -> None:
    times: list[Any] = [1_700_000_000, int(SECONDS[1]), int(SECONDS[0])]
    rows: dict[str, list[Any]] = {"timestamp": times, "price": [1.0, 2.0, 3.0]}
    rows[column][1] = value
    expected = f"dropped 1 of 3 rows: 1 with {reason}"
    with pytest.warns(UserWarning, match=re.escape(expected)) as caught:
        found = prepare_bitcoin_df(pd.DataFrame(rows))
    assert found["price_usd"].tolist() == [1.0, 3.0]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"the first is row 2, with {column} {value!r}"[:60] in str(caught[0].message)


def test_times_beyond_what_pandas_holds_do_not_wrap_around() -> None:
    times = np.array(["2024-01-01", "9999-01-01"], "datetime64[s]")
    with pytest.warns(UserWarning, match="1 with no readable time; the first is row 2"):
        found = prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price": [1.0, 2.0]}))
    assert found.index.tolist() == [pd.Timestamp("2024-01-01", tz="UTC")]


def test_an_index_of_texts_named_timestamp_is_read() -> None:
    frame = pd.DataFrame({"price": [1.0, 2.0]}, index=pd.Index(DAYS, name="timestamp"))
    assert prepare_bitcoin_df(frame).index.strftime("%Y-%m-%d").tolist() == DAYS


@pytest.mark.parametrize("given", [None, [1], {"price": [1]}, pd.Series([1.0]), np.zeros(3)])
def test_what_is_no_frame_is_refused_in_words(given: Any) -> None:
    for helper in (prepare_bitcoin_df, calculate_moving_average, calculate_volatility):
        with pytest.raises(DataError, match="expected a pandas DataFrame"):
            helper(given)


@pytest.mark.parametrize(
    "prices",
    [["x", "1"], [np.inf, 1.0], [[1], 2], pd.to_datetime(DAYS), [1j, 2]],
    ids=["text", "infinite", "list", "times", "complex"],
)
def test_prices_that_are_no_numbers_are_refused_in_words(prices: Any) -> None:
    frame = pd.DataFrame({"price": prices})
    for helper in (calculate_moving_average, calculate_volatility):
        with pytest.raises(DataError, match=r"price (of row 1 )?is .*, expected"):
            helper(frame, 2)


@pytest.mark.filterwarnings("error")
def test_missing_huge_and_zero_prices_give_no_warning() -> None:
    for prices in ([], [1.0, None, 3.0], [0.0, 0.0, 0.0], [1e-12, 1e300, 3.0]):
        frame = pd.DataFrame({"price": pd.Series(prices, dtype="float64")})
        assert len(calculate_volatility(frame, 2)) == len(calculate_moving_average(frame, 2))
