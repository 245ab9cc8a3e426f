import math

import pytest

from bitstorm.report import style
from bitstorm.report.style import Mark


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (67_123.456, "67,123.46"),
        (1_234_567.0, "1,234,567.00"),
        (0.0, "0.00"),
        (0.081234567, "0.0812346"),
        (-12.5, "-12.50"),
        (None, "n/a"),
        (math.nan, "n/a"),
        (-math.inf, "n/a"),
    ],
)
def test_an_amount_reads_well_at_every_size(value: float | None, text: str) -> None:
    assert style.amount(value) == text


def test_percent_share_score_and_small_keep_sign_and_digits() -> None:
    assert style.percent(1.255) == "+1.25 %"
    assert style.percent(-0.5) == "-0.50 %"
    assert style.share(0.8, digits=0) == "80 %"
    assert style.share(0.7905) == "79.0 %"
    assert style.score(0.00214) == "+0.0021"
    assert style.score(-math.inf) == "n/a"
    assert style.small(0.0042134) == "0.004213"
    assert style.small(2.1e-9) == "2.1e-09"
    assert style.money(None, "USD") == "n/a"
    assert style.count(8760) == "8,760"
    assert style.count(None) == "n/a"


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2024-03-01T12:00:00Z", "2024-03-01 12:00 UTC"),
        ("2024-03-01T00:00:30Z", "2024-03-01 00:00:30 UTC"),
        ("2024-03-01T00:00:00.250Z", "2024-03-01 00:00:00.250 UTC"),
        ("not a time", "not a time"),
        (None, "n/a"),
    ],
)
def test_a_moment_is_written_without_empty_seconds(iso: str | None, text: str) -> None:
    assert style.moment(iso) == text


def test_a_simulated_mark_has_a_banner_and_no_attribution() -> None:
    mark = Mark("simulated:7", "bitcoin", "usd")
    assert mark.simulated
    assert mark.banner == "SIMULATED market (seed 7): not real prices"
    assert mark.attribution is None
    assert mark.subject == "Bitcoin in USD"


def test_a_coingecko_mark_has_an_attribution_and_no_banner() -> None:
    mark = Mark("coingecko", "ethereum", "eur")
    assert not mark.simulated
    assert mark.banner is None
    assert mark.attribution == "Data provided by CoinGecko"
    assert mark.unit == "EUR"


def test_an_imported_file_has_neither_banner_nor_attribution() -> None:
    mark = Mark("csv", "bitcoin", "usd")
    assert (mark.banner, mark.attribution) == (None, None)
    assert mark.origin == "csv (imported file)"
