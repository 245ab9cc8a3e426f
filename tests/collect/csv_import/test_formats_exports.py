"""Exports as their sites and programs write them: `--format auto` gives twelve known prices."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import sin
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.csv_import.importer import preview
from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, iso
from collect.foreign_files import reading_of

START = datetime(2024, 2, 13, tzinfo=UTC)
PRICES = [round(49699.6 + 137.25 * sin(i) + 11.5 * i, 1) for i in range(12)]
HOURS = [START + timedelta(hours=i) for i in range(12)]
DAYS = [START + timedelta(days=i) for i in range(12)]


def bar(price: float, form: Callable[[float], str] = str, between: str = ",") -> str:
    """Open, high, low and close."""
    return between.join(form(round(p, 1)) for p in (price - 9, price + 20, price - 30, price))


def file_of(header: str, times: list[datetime], row: Callable[[datetime, float], str]) -> str:
    rows = [row(time, price) for time, price in zip(times, PRICES, strict=True)]
    return "\n".join([header, *rows] if header else rows) + "\n"


def german(price: float) -> str:
    return f"{price:,.1f}".replace(",", " ").replace(".", ",").replace(" ", ".")


def investing(pattern: str) -> str:
    """Newest first, all cells in quotes, thousands in groups."""
    header, *rows = file_of(
        '"Date","Price","Open","High","Low","Vol.","Change %"', DAYS,
        lambda t, p: f'"{t:{pattern}}","{p:,.1f}","{p:,.1f}","{p:,.1f}","{p:,.1f}","61.2K","0.4%"',
    ).splitlines()  # fmt: skip
    return "\n".join([header, *reversed(rows)]) + "\n"


def unix(time: datetime) -> int:
    return int(time.timestamp())


MT5 = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
OHLC = "Open,High,Low,Close"
DAILY = {
    "Investing.com": investing("%b %d, %Y"),
    "Investing.com, month first": investing("%m/%d/%Y"),
    "Investing.com, day first": investing("%d/%m/%Y"),
    "Investing.com, dashes": investing("%d-%m-%Y"),
    "Investing.com in German": file_of(
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"', DAYS,
        lambda t, p: f'"{t:%d.%m.%Y}","{german(p)}","{german(p)}","1","1","61,20K","0,41%"',
    ),
    "Yahoo": file_of(f"Date,{OHLC},Adj Close,Volume", DAYS,
                     lambda t, p: f"{t:%Y-%m-%d},{bar(p)},{p},100"),
    "Yahoo's page": file_of(f"Date\t{OHLC.replace(',', chr(9))}\tAdj Close**\tVolume", DAYS,
                            lambda t, p: f"{t:%b %d, %Y}\t{bar(p, '{:,.2f}'.format, chr(9))}"
                                         f"\t{p}\t9"),
    "yfinance": file_of(
        "Price,Close,High,Low,Open,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\n"
        "Date,,,,,", DAYS, lambda t, p: f"{t:%Y-%m-%d},{p},1,1,1,9",
    ),
    "yfinance with its index reset": file_of(
        f"Date,{OHLC},Volume\n,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD", DAYS,
        lambda t, p: f"{t:%Y-%m-%d},{bar(p)},9",
    ),
    "yfinance by ticker": file_of(
        f"Ticker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nPrice,{OHLC},Volume\nDate,,,,,", DAYS,
        lambda t, p: f"{t:%Y-%m-%d},{bar(p)},9",
    ),
    "yfinance's history": file_of(
        f"Date,{OHLC},Volume,Dividends,Stock Splits", DAYS,
        lambda t, p: f"{t:%Y-%m-%d} 00:00:00+00:00,{bar(p)},9,0.0,0.0",
    ),
    "MetaTrader 5, days": file_of(
        MT5.replace("<TIME>\t", ""), DAYS,
        lambda t, p: f"{t:%Y.%m.%d}\t{bar(p, between=chr(9))}\t812\t0\t1700",
    ),
    "CoinMarketCap's page": file_of(
        '"Date","Open*","High","Low","Close**","Volume","Market Cap"', DAYS,
        lambda t, p: f'"{t:%b %d, %Y}",1,1,1,"${p:,.2f}","$9","$975,000,000"',
    ),
}  # fmt: skip
HOURLY = {
    "yfinance, hours": file_of(
        "Price,Adj Close,Close,High,Low,Open,Volume\nTicker" + ",BTC-USD" * 6 + "\nDatetime,,,,,,",
        HOURS, lambda t, p: f"{t:%Y-%m-%d %H:%M:%S}+00:00,1,{p},1,1,1,9",
    ),
    "MetaTrader 5": file_of(
        MT5, HOURS,
        lambda t, p: f"{t:%Y.%m.%d\t%H:%M:%S}\t{bar(p, between=chr(9))}\t812\t0\t1700",
    ),
    "MetaTrader 4": file_of("", HOURS, lambda t, p: f"{t:%Y.%m.%d,%H:%M},{bar(p)},812"),
    "MetaTrader in plain words": file_of(
        f"Date,Time,{OHLC},Volume", HOURS, lambda t, p: f"{t:%Y.%m.%d,%H:%M},{bar(p)},812",
    ),
    "a file as Stooq's": file_of(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", HOURS,
        lambda t, p: f"BTC,60,{t:%Y%m%d,%H%M%S},{bar(p)},9",
    ),
    "TradingView": file_of("time,open,high,low,close,Volume", HOURS,
                           lambda t, p: f"{unix(t)},{bar(p)},9"),
    "TradingView, Volume twice": file_of(
        "time,open,high,low,close,Volume,Volume MA,Volume", HOURS,
        lambda t, p: f"{unix(t)},{bar(p)},12.5,11.9,12.5",
    ),
    "TradingView, ISO times": file_of(
        "time,open,high,low,close,Plot,Plot,Plot", HOURS,
        lambda t, p: f"{(t + timedelta(hours=1)):%Y-%m-%dT%H:%M:%S}+01:00,{bar(p)},1,2,3",
    ),
    "Kraken's bars": file_of("", HOURS, lambda t, p: f"{unix(t)},{bar(p)},12.5,620"),
    "Kraken's bars with their mean": file_of(
        "", HOURS, lambda t, p: f"{unix(t)},{bar(p)},{p - 1},12.5,620"),
    "Kraken's bars with a header": file_of(
        "time,open,high,low,close,vwap,volume,count", HOURS,
        lambda t, p: f"{unix(t)},{bar(p)},{p - 1},12.5,620",
    ),
    "Binance": file_of(
        "", HOURS,
        lambda t, p: f"{unix(t)}000000,{bar(p)},1,{unix(t) + 3600}000000,1,9,6,1,0".replace(
            f",{unix(t) + 3600}000000", f",{unix(t) + 3599}999999"),
    ),
}  # fmt: skip
EXPORTS = {**{n: (t, DAYS) for n, t in DAILY.items()}, **{n: (t, HOURS) for n, t in HOURLY.items()}}


def read(folder: Path, text: str, **options: Any) -> list[tuple[str, float]]:
    """Time and price of each row, by time."""
    file = folder / "file.csv"
    file.write_text(text, encoding="utf-8")
    shown = preview(file, reading_of(file, **options), rows=99)
    return sorted((row[0], float(row[1])) for row in shown.rows)


def known(times: list[datetime], later_ms: int = 0) -> list[tuple[str, float]]:
    return [(iso(unix(t) * 1000 + later_ms), p) for t, p in zip(times, PRICES, strict=True)]


@pytest.mark.parametrize("name", EXPORTS)
def test_a_known_export_needs_no_other_word(tmp_path: Path, name: str) -> None:
    text, times = EXPORTS[name]
    assert read(tmp_path, text, auto=True) == known(times)
    notes = reading_of(tmp_path / "file.csv", auto=True).notes
    if name != "yfinance with its index reset":
        assert notes[0].startswith("recognised as")
        assert any("--stamp open" in note for note in notes)


@pytest.mark.parametrize("name", sorted(EXPORTS.keys() - {"yfinance with its index reset"}))
def test_a_known_export_knows_how_long_its_bars_are(tmp_path: Path, name: str) -> None:
    text, times = EXPORTS[name]
    length = DAY_MS if times is DAYS else HOUR_MS
    assert read(tmp_path, text, auto=True, stamp="open") == known(times, length)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("stamp", ["timestamp", "timeClose"])
def test_coinmarketcaps_days_end_with_their_close(tmp_path: Path, quote: str, stamp: str) -> None:
    def row(time: datetime, price: float) -> str:
        first, last = (f"{quote}{time:%Y-%m-%d}T{clock}Z{quote}"
                       for clock in ("00:00:00.000", "23:59:59.999"))  # fmt: skip
        ohlc = bar(price, between=";")
        return f"{first};{last};{first};{first};2781;{ohlc};1e10;9.7e11;19620000;{last}"

    header = "timeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;marketCap;supply"
    text = file_of(f"{header};{stamp if stamp == 'timestamp' else 'other'}", DAYS, row)
    file = tmp_path / "file.csv"
    assert read(tmp_path, text, auto=True) == known(DAYS, DAY_MS - 1)
    reading = reading_of(file, auto=True)
    assert dict(reading.columns) == {
        "timestamp": stamp,
        "price": "close",
        "market_cap": "marketCap",
    }
    assert preview(file, reading).rows[0][2] == "9.7e11"
    # The bar's start, with its length, is the midnight after it.
    assert read(tmp_path, text, auto=True, stamp="open") == known(DAYS, DAY_MS)


def test_trades_without_a_header_are_time_price_and_volume(tmp_path: Path) -> None:
    text = file_of("", HOURS, lambda t, p: f"{unix(t)},{p},0.{t.hour + 1:04d}")
    assert read(tmp_path, text, auto=True) == known(HOURS)
    notes = reading_of(tmp_path / "file.csv", auto=True).notes
    assert "the file has no header; its columns are read as time, price, volume" in notes
    with pytest.raises(UsageError, match=r"1, 2, 3 \(it has no header\)"):
        read(tmp_path, text)


def test_a_german_export_of_few_days_has_the_day_first(tmp_path: Path) -> None:
    text = '"Datum","Zuletzt","Eröffn.","Hoch","Tief"\n"05.02.2024","42,5","1","1","1"\n'
    assert read(tmp_path, text, auto=True) == [("2024-02-05T00:00:00Z", 42.5)]
    columns = {"timestamp_column": "Datum", "price_column": "Zuletzt"}
    with pytest.raises(UsageError, match="--date-format"):
        read(tmp_path, text, **columns)


@pytest.mark.parametrize("pattern", ["%m/%d/%Y", "%d/%m/%Y"])
def test_an_english_export_of_few_days_is_asked(tmp_path: Path, pattern: str) -> None:
    text = '"Date","Price","Open","High","Low","Vol.","Change %"\n"02/05/2024","42.5",1,1,1,1,1\n'
    with pytest.raises(UsageError, match=pattern):
        read(tmp_path, text, auto=True)
    time = {"%m/%d/%Y": "2024-02-05", "%d/%m/%Y": "2024-05-02"}[pattern]
    rows = read(tmp_path, text, auto=True, date_format=pattern)
    assert rows == [(f"{time}T00:00:00Z", 42.5)]


@pytest.mark.parametrize("column", ["Price", "Date"])
def test_the_time_of_yfinance_has_two_names(tmp_path: Path, column: str) -> None:
    text = DAILY["yfinance"]
    assert read(tmp_path, text, auto=True, timestamp_column=column) == known(DAYS)
    columns = {"timestamp_column": column, "price_column": "Close"}
    assert read(tmp_path, text, **columns) == known(DAYS)


def test_of_several_tickers_one_has_to_be_named(tmp_path: Path) -> None:
    text = file_of(
        "Price,Close,Close,High,High\nTicker,BTC-USD,ETH-USD,BTC-USD,ETH-USD\nDate,,,,", DAYS,
        lambda t, p: f"{t:%Y-%m-%d},{p},2600.5,{p + 1},2700",
    )  # fmt: skip
    with pytest.raises(UsageError, match="Date, Close BTC-USD, Close ETH-USD"):
        read(tmp_path, text, auto=True)
    assert read(tmp_path, text, auto=True, price_column="Close BTC-USD") == known(DAYS)


def test_a_server_of_metatrader_has_a_zone_of_its_own(tmp_path: Path) -> None:
    text = HOURLY["MetaTrader 5"]
    rows = read(tmp_path, text, auto=True, timezone="Europe/Athens")
    assert rows == known(HOURS, -2 * HOUR_MS)
    assert any("server's time" in n for n in reading_of(tmp_path / "file.csv", auto=True).notes)
