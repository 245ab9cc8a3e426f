"""The CSV contract: what is taken, what is refused, and by which rule."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pyspark.sql import SparkSession

from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.ingest.parse import reason, to_prices, with_fields, with_rule, with_values

pytestmark = pytest.mark.slow

HEADER = ("timestamp", "price", "market_cap", "volume_24h", "price_change_24h")
NOT_AFTER = 1_700_000_000_000

# text of the line → the rule that it breaks (None: good), worked out by hand from the contract
LINES: dict[str, str | None] = {
    "1609459200,29000,,,": None,
    "1609459200000,29000,,,": None,
    "1609459200,2.9e4,1e12,.5,-1.25": None,
    "1609459200,+29000.,0,0,0": None,
    " 1609459200 , 29000 ,,,": None,
    '"1609459200","29000",,,': None,
    "2021-01-01T00:00:00Z,29000,,,": None,
    "2021-01-01 00:00,29000,,,": None,
    "2021-01-01T00:00:00,29000,,,": None,
    "2021-01-01T01:00:00+01:00,29000,,,": None,
    "2021-01-01T00:00:00.123456789Z,29000,,,": None,
    "2021-01-01T00:00:00z,29000,,,": None,
    "1609459200\t,\t29000\t,,,": None,
    "2021-01-01T00:00:00Z,\t29000\t,,,": None,
    "1609459200,29000": "field_count",
    "1609459200,29000,,,,": "field_count",
    '1609459200,"29,000",,,': "field_count",
    ",29000,,,": "timestamp_present",
    "12:30,29000,,,": "timestamp_readable",
    "yesterday,29000,,,": "timestamp_readable",
    "2021-01-01,29000,,,": "timestamp_readable",
    "2021-13-01T00:00:00Z,29000,,,": "timestamp_readable",
    "2021-02-29T00:00:00Z,29000,,,": "timestamp_readable",
    "1609459200.5,29000,,,": "timestamp_readable",
    "-1609459200,29000,,,": "timestamp_readable",
    "0x5fee6600,29000,,,": "timestamp_readable",
    "99999999999999999999,29000,,,": "timestamp_readable",
    "0,29000,,,": "timestamp_in_range",
    "1230940799,29000,,,": "timestamp_in_range",
    "1230940800,1,,,": None,
    "1700000000,29000,,,": None,
    "1700000000001,29000,,,": "not_in_future",
    "2030-01-01T00:00:00Z,29000,,,": "not_in_future",
    "999999999999999999,29000,,,": "not_in_future",
    "1609459200,,,,": "price_present",
    '1609459200,"",,,': "price_present",
    "1609459200,NaN,,,": "price_finite",
    "1609459200,-Infinity,,,": "price_finite",
    "1609459200,inf,,,": "price_finite",
    "1609459200,100d,,,": "price_readable",
    "1609459200,100f,,,": "price_readable",
    "1609459200,0x1p3,,,": "price_readable",
    "1609459200,abc,,,": "price_readable",
    "1609459200,1 000,,,": "price_readable",
    "1609459200,$5,,,": "price_readable",
    "1609459200,٣,,,": "price_readable",
    "1609459200,5\0,,,": "price_readable",
    "1609459200,1e,,,": "price_readable",
    "1609459200,.,,,": "price_readable",
    "1609459200,0,,,": "price_positive",
    "1609459200,-0.0,,,": "price_positive",
    "1609459200,-5,,,": "price_positive",
    "1609459200,1e60,,,": "price_in_range",
    "1609459200,1e999,,,": "price_in_range",
    "1609459200,1e-60,,,": "price_in_range",
    "1609459200,5,many,,": "market_cap_readable",
    "1609459200,5,NaN,,": "market_cap_readable",
    "1609459200,5,,1e999,": "volume_24h_readable",
    "1609459200,5,,,1e39": "price_change_24h_readable",
}


def judged(
    spark: SparkSession,
    lines: list[str],
    header: tuple[str, ...] = HEADER,
    *,
    numeric: bool = False,
):
    places = [header.index(name) if name in header else None for name in CSV_COLUMNS]
    rows = [(i, line, len(header), NOT_AFTER, numeric, *places) for i, line in enumerate(lines)]
    schema = "n int, text string, width int, not_after_ms bigint, numeric boolean, " + ", ".join(
        f"at_{name} int" for name in CSV_COLUMNS
    )
    frame = spark.createDataFrame(rows, schema)
    return frame.transform(with_fields).transform(with_values).transform(with_rule)


def test_a_line_is_taken_or_refused_by_the_rule_it_breaks(spark_session):
    found = {row["text"]: row for row in judged(spark_session, list(LINES)).collect()}
    assert {text: found[text]["rule"] for text in LINES} == LINES
    for text, rule in LINES.items():
        if rule is not None:
            assert reason(rule, found[text].asDict())


def test_knowing_that_a_line_has_no_letter_changes_no_verdict(spark_session):
    lines = [line for line in LINES if not re.search(r"[^0-9.,+\- \t\"]", line)]
    assert len(lines) > 15 and {LINES[line] for line in lines} > {None, "price_positive"}
    told = judged(spark_session, lines, numeric=True).drop("numeric").collect()
    assert told == judged(spark_session, lines).drop("numeric").collect()


def test_times_become_unix_milliseconds_utc_whatever_their_form(spark_session):
    new_year = 1_609_459_200_000
    expected = {
        "1609459200,1,,,": new_year,
        "1609459200123,1,,,": new_year + 123,
        "99999999999,1,,,": 99_999_999_999_000,
        "100000000000,1,,,": 100_000_000_000,
        "2021-01-01T00:00:00Z,1,,,": new_year,
        "2021-01-01T00:00,1,,,": new_year,
        "2021-01-01 00:00:00.5,1,,,": new_year + 500,
        "2021-01-01T05:30:00+05:30,1,,,": new_year,
        "2020-12-31T16:00:00-0800,1,,,": new_year,
        "2021-01-01T00:00:00.123456789Z,1,,,": new_year + 123,
    }
    rows = judged(spark_session, list(expected)).select("text", "timestamp").collect()
    assert {row["text"]: row["timestamp"] for row in rows} == expected


def test_columns_go_by_name_and_prices_are_rounded_once(spark_session):
    header = ("price_change_24h", "price", "timestamp")
    lines = ["-1.4093297098441402,77953.82550382407,1679027899041"]
    places = judged(spark_session, lines, header)
    row = to_prices(places).collect()[0]
    assert row["timestamp"] == 1_679_027_899_041
    assert np.float32(row["price"]) == np.float32(77953.82550382407)
    assert np.float32(row["price_change_24h"]) == np.float32(-1.4093297098441402)
    assert row["market_cap"] is None and row["volume_24h"] is None
    assert row["month"] == "2023-03"


def test_optional_numbers_are_kept_in_double(spark_session):
    line = "1609459200,1,1542226908349.8406,29096603418.89408,"
    row = to_prices(judged(spark_session, [line])).collect()[0]
    assert (row["market_cap"], row["volume_24h"]) == (1542226908349.8406, 29096603418.89408)
    assert row["price_change_24h"] is None


def test_months_change_at_midnight_utc(spark_session):
    lines = ["2021-01-31T23:59:59.999Z,1,,,", "2021-02-01T00:00:00Z,1,,,"]
    frame = to_prices(judged(spark_session, lines), keep=("n",)).orderBy("n")
    assert [row["month"] for row in frame.collect()] == ["2021-01", "2021-02"]


def test_a_reason_says_what_was_found_and_never_a_whole_novel(spark_session):
    line = "1609459200," + "x" * 10_000 + ",,,"
    row = judged(spark_session, [line]).collect()[0].asDict()
    text = reason(row["rule"], row)
    assert "xxx" in text and "number" in text and len(text) < 200


def test_a_refused_row_keeps_only_its_place(spark_session):
    lines = ["999999999999999999,5,,,", "1609459200,7,,,"]
    frame = to_prices(judged(spark_session, lines), keep=("n", "rule")).orderBy("n")
    bad, good = frame.collect()
    assert (bad["rule"], bad["timestamp"], bad["price"], bad["month"]) == (
        "not_in_future",
        None,
        None,
        None,
    )
    assert (good["rule"], good["price"], good["month"]) == (None, 7.0, "2021-01")
