"""CoinGecko's daily stamps before 2018-01-30 carry the day's end: moved, refused or kept."""

import csv
import gzip
import math
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.csv_import.formats import SWITCH_MS, Action, switch_of
from bitstorm.collect.csv_import.importer import Imported, import_file
from bitstorm.core.time import DAY_MS, parse_instant
from bitstorm.evaluation.comparison import skill_score
from collect.faulty_server import NOW_MS
from collect.foreign_files import reading_of
from collect.recordings import recording

COINGECKO = "coingecko_bitcoin_usd_daily_2013-04-28_2023-06-03.csv.gz"
COINBASE = "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz"


def imported(file: Path, landing: Path, **options: Any) -> Imported:
    return import_file(file, landing, reading_of(file, **options), clock=lambda: NOW_MS)


def table(result: Imported) -> list[list[str]]:
    with result.batch.path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def source_rows() -> list[tuple[int, str]]:
    with gzip.open(recording(COINGECKO), "rt", encoding="utf-8") as stream:
        return [(int(r["timestamp_ms"]), r["price_usd"]) for r in csv.DictReader(stream)]


def test_the_real_history_moves_to_the_moments_that_it_describes(tmp_path: Path) -> None:
    rows = source_rows()
    result = imported(recording(COINGECKO), tmp_path, auto=True)
    landed = table(result)
    assert [row[1] for row in landed] == [price for _, price in rows]
    odd = parse_instant("2017-06-06T23:29:55.701Z"), parse_instant("2017-06-08T23:39:21.692Z")
    for (stamp, _), row in zip(rows, landed, strict=True):
        if stamp in odd or stamp >= SWITCH_MS + DAY_MS:
            assert row[0] == str(stamp)
        elif stamp < SWITCH_MS:
            assert row[0] == str(stamp + DAY_MS)
        else:
            assert row[0].startswith(f"{stamp} (the same midnight")
    times = [int(row[0]) for row in landed if row[0].isdigit()]
    assert times == sorted(set(times))
    early = sum(stamp < SWITCH_MS for stamp, _ in rows)
    assert result.batch.sidecar.corrections == [
        {
            "daily_switch": "move",
            "before_ms": SWITCH_MS,
            "shifted_ms": DAY_MS,
            "shifted_rows": early - 2,
            "refused_rows": 1,
        }
    ]
    assert any(f"{early:,} daily points before 2018-01-30" in note for note in result.notes)


def prices_of_an_exchange() -> dict[int, float]:
    """The price at the beginning of each hour, by Unix ms."""
    with gzip.open(recording(COINBASE), "rt", encoding="utf-8") as stream:
        return {int(r["timestamp_s"]) * 1000: float(r["open"]) for r in csv.DictReader(stream)}


def daily_points(folder: Path, action: Action) -> list[tuple[int, float]]:
    result = imported(recording(COINGECKO), folder / action, auto=True, daily_switch=action)
    return [(int(row[0]), float(row[1])) for row in table(result) if row[0].isdigit()]


def test_moved_points_stand_where_an_exchange_has_these_prices(tmp_path: Path) -> None:
    opens = prices_of_an_exchange()

    def apart(action: Action) -> float:
        found = [
            abs(price / opens[stamp] - 1)
            for stamp, price in daily_points(tmp_path, action)
            if stamp in opens and stamp <= SWITCH_MS
        ]
        assert len(found) > 200
        return sorted(found)[len(found) // 2]

    assert apart("move") < 0.012
    assert apart("keep") > 0.02


def test_unmoved_points_know_the_price_of_the_next_day(tmp_path: Path) -> None:
    """The forecast for the end of a day is the daily price stamped with its beginning. Persistence
    is the exchange's price at that time. A skill of 80 % for a day ahead is a leak."""
    opens = prices_of_an_exchange()

    def skill(action: Action, *, early: bool) -> float:
        forecast, persistence = [], []
        for stamp, price in daily_points(tmp_path, action):
            end = stamp + DAY_MS
            if stamp in opens and end in opens and (end < SWITCH_MS) == early:
                forecast.append(math.log(price / opens[end]) ** 2)
                persistence.append(math.log(opens[stamp] / opens[end]) ** 2)
        assert len(forecast) > 200
        means = (math.sqrt(sum(errors) / len(errors)) for errors in (forecast, persistence))
        return skill_score(*means)

    assert skill("keep", early=True) > 0.75
    assert skill("move", early=True) < 0
    # After the switch there is nothing to move, and nothing to know.
    assert skill("keep", early=False) < 0
    assert skill("move", early=False) < 0


def test_refused_points_stay_as_text_for_ingest_to_refuse(tmp_path: Path) -> None:
    rows = source_rows()
    result = imported(recording(COINGECKO), tmp_path, auto=True, daily_switch="refuse")
    early = sum(stamp < SWITCH_MS for stamp, _ in rows)
    times = [row[0] for row in table(result)]
    assert all("carries the price of the day's end" in time for time in times[:early])
    assert times[early:] == [str(stamp) for stamp, _ in rows[early:]]
    (correction,) = result.batch.sidecar.corrections
    assert correction == {"daily_switch": "refuse", "before_ms": SWITCH_MS, "refused_rows": early}
    assert result.batch.sidecar.first_ms == rows[early][0]


EXPORT = """snapped_at,price,market_cap,total_volume
2018-02-01 00:00:00 UTC,10125.0,170456781105.2,9959400448.0
2018-01-31 00:00:00 UTC,9989.7,168188285150.7,3804947187.2
2018-01-30 00:00:00 UTC,11095.2,186776632503.0,2321424679.5
2018-01-29 00:00:00 UTC,11157.7,187828526722.4,2345235501.1
2018-01-28 00:00:00 UTC,11644.3,195988741251.0,3350254125.9
"""


def test_an_export_of_the_site_is_recognised_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "btc-usd-max.csv"
    file.write_text(EXPORT)
    result = imported(file, tmp_path / "landing", auto=True)
    assert [(row[0][:13], row[1]) for row in table(result)] == [
        (str(SWITCH_MS + 2 * DAY_MS), "10125.0"),
        (str(SWITCH_MS + DAY_MS), "9989.7"),
        ("2018-01-30 00", "11095.2"),
        (str(SWITCH_MS), "11157.7"),
        (str(SWITCH_MS - DAY_MS), "11644.3"),
    ]
    assert result.notes[0] == "recognised as an export of CoinGecko"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("total_volume", "volume"),
        lambda text: text.replace("2018-01", "2019-01").replace("2018-02", "2019-02"),
        lambda text: text.replace(" 00:", " 0{}:").replace("{}", "1"),
    ],
    ids=["another source", "after the switch", "not at midnight"],
)
def test_other_series_stay_where_they_are(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "file.csv"
    file.write_text(change(EXPORT))
    result = imported(file, tmp_path / "landing", auto=True)
    with file.open(encoding="utf-8", newline="") as stream:
        stamps = [row["snapped_at"].removesuffix(" UTC") for row in csv.DictReader(stream)]
    assert [row[0] for row in table(result)] == [str(parse_instant(s)) for s in stamps]


def test_who_says_what_a_stamp_is_is_not_corrected(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text(EXPORT)
    result = imported(file, tmp_path / "landing", auto=True, stamp="open", bar="1d")
    assert result.batch.sidecar.corrections == [{"stamp": "open", "shifted_ms": DAY_MS}]
    assert table(result)[3][0] == str(SWITCH_MS)


def test_without_its_twin_the_first_new_point_stays() -> None:
    found = switch_of([SWITCH_MS - 2 * DAY_MS, None, SWITCH_MS], "move")
    assert found is not None
    assert found.moment(SWITCH_MS) == (SWITCH_MS, None)
    assert switch_of([SWITCH_MS, SWITCH_MS + DAY_MS], "move") is None
