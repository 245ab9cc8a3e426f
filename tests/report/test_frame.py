import json
import textwrap
from pathlib import Path

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
from bitstorm.report.frame import generate_report, plot_price_trend, plot_volatility


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(4)
    prices = 40_000 * np.exp(np.cumsum(random.normal(0, 0.01, 100)))
    times = 1_704_067_200 + 3_600 * np.arange(100)
    times[60:] += 3_600 * 240
    return prepare_bitcoin_df(pd.DataFrame({"timestamp": times, "price_usd": prices}))


def lines(figure: object) -> dict[str, np.ndarray]:
    (axes,) = figure.axes  # type: ignore[attr-defined]
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def test_the_price_trend_shows_price_and_moving_averages(frame: pd.DataFrame) -> None:
    both = calculate_moving_average(calculate_moving_average(frame, 24), 3)
    drawn = lines(plot_price_trend(both))
    assert list(drawn) == ["price", "mean of the last 3", "mean of the last 24"]
    for label, column in (("price", "price_usd"), ("mean of the last 24", "ma_24")):
        np.testing.assert_array_equal(np.delete(drawn[label], 60), both[column])
        assert np.isnan(drawn[label][60])


def test_the_volatility_plot_takes_the_given_window_or_seven(frame: pd.DataFrame) -> None:
    drawn = lines(plot_volatility(calculate_volatility(frame, 5)))
    assert list(drawn) == ["last 5 changes"]
    (seven,) = lines(plot_volatility(frame)).values()
    expected = calculate_volatility(frame, 7)["volatility_7"]
    np.testing.assert_allclose(np.delete(seven, 60), expected, rtol=1e-12)


def test_only_a_long_silence_breaks_the_line() -> None:
    minutes = np.array([0, 60, 125, 180, 300, 360, 1000, 1060])
    frame = prepare_bitcoin_df(
        pd.DataFrame({"timestamp": 1_704_067_200 + 60 * minutes, "price": np.arange(1.0, 9.0)})
    )
    drawn = lines(plot_price_trend(frame))["price"]
    np.testing.assert_array_equal(drawn, [1, 2, 3, 4, 5, 6, np.nan, 7, 8])


def test_the_report_returns_exactly_what_it_prints(
    frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    before = frame.copy(deep=True)
    text = generate_report(frame)
    captured = capsys.readouterr()
    assert captured.out == text
    assert captured.err == ""
    assert_frame_equal(frame, before)


def test_the_report_has_period_count_statistics_and_change(frame: pd.DataFrame) -> None:
    text = generate_report(frame)
    prices = frame["price_usd"].to_numpy()
    assert "Period: 2024-01-01T00:00:00Z to 2024-01-15T03:00:00Z" in text
    assert "Count: 100\n" in text
    assert f"Latest price: {prices[-1]:,.2f} USD" in text
    assert f"Change in 24 h: {100 * (prices[-1] / prices[-25] - 1):+.2f} %" in text
    table = text.splitlines()
    assert table[4].split() == ["price_usd", "ma_7", "volatility_7"]
    counts = next(row.split() for row in table if row.startswith("count"))
    assert counts == ["count", "100", "94", "93"]
    means = next(row.split() for row in table if row.startswith("mean"))
    assert float(means[1].replace(",", "")) == pytest.approx(prices.mean(), rel=1e-5)
    smallest = next(row.split() for row in table if row.startswith("min"))
    assert float(smallest[1].replace(",", "")) == pytest.approx(prices.min(), rel=1e-5)


def test_the_report_adds_both_indicators_of_the_library(frame: pd.DataFrame) -> None:
    ours = calculate_volatility(calculate_moving_average(frame))
    assert generate_report(frame) == generate_report(ours)


def test_a_change_over_a_hole_is_no_change_in_24_hours(frame: pd.DataFrame) -> None:
    assert "Change in 24 h: n/a" in generate_report(frame.iloc[:80])
    assert "Change in 24 h: n/a" in generate_report(frame.iloc[:1])


def test_daily_prices_change_against_the_day_before() -> None:
    frame = prepare_bitcoin_df(
        pd.DataFrame({"timestamp": ["2024-01-01", "2024-01-02", "2024-01-03"], "price": [1, 4, 5]})
    )
    assert "Change in 24 h: +25.00 %" in generate_report(frame)


def test_a_frame_that_was_not_prepared_is_refused_in_words(frame: pd.DataFrame) -> None:
    for wrong in (frame.reset_index(), frame.rename(columns={"price_usd": "x"}), frame[::-1]):
        with pytest.raises(DataError, match="pass it through prepare_bitcoin_df first"):
            plot_price_trend(wrong)
    with pytest.raises(DataError, match="the frame has no row"):
        generate_report(frame.iloc[:0])


BACKEND = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

shown = []

class Manager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        from matplotlib import pyplot
        shown.append([pyplot.figure(number) for number in pyplot.get_fignums()])

class FigureCanvas(FigureCanvasAgg):
    required_interactive_framework = "headless"
    manager_class = Manager

FigureManager = Manager
"""


def test_with_a_screen_each_picture_is_shown_once_in_a_window(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    (tmp_path / "screen_backend.py").write_text(textwrap.dedent(BACKEND), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    usual = pyplot.get_backend()
    pyplot.switch_backend("module://screen_backend")
    try:
        generate_report(frame)
        import screen_backend  # type: ignore[import-not-found]

        titles = [
            [figure.texts[0].get_text() for figure in window] for window in screen_backend.shown
        ]
        assert titles == [["Bitcoin in USD"], ["Volatility of Bitcoin in USD"]]
        assert pyplot.get_fignums() == []
    finally:
        pyplot.switch_backend(usual)


CELLS = [
    """
import pandas as pd
from bitstorm.report.frame import generate_report, plot_price_trend
df = pd.DataFrame(
    {"price_usd": range(1, 60)},
    index=pd.date_range("2024-01-01", periods=59, freq="h", tz="UTC", name="timestamp"),
)
""",
    "plot_price_trend(df)",
    "text = generate_report(df)",
    "import matplotlib.pyplot as plt",
    "plot_price_trend(df)",
    "text = generate_report(df)",
    "figure = plot_price_trend(df)",
]


@pytest.mark.slow
def test_a_notebook_shows_every_picture_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "lib"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    import nbformat  # takes seconds
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    pictures = [
        sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
    ]
    assert pictures == [0, 1, 2, 0, 1, 2, 0], json.dumps(notebook.cells, indent=1)[:4000]
    errors = [
        output.text
        for cell in notebook.cells
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert errors == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"price_usd": "x"}, "price_usd of row 1 is 'x', expected a finite number"),
        ({"price_usd": np.inf}, "price_usd of row 1 is inf, expected a finite number"),
        ({"ma_7": "x", "volatility_7": "x"}, "is no column of numbers"),
    ],
    ids=["text", "infinite", "indicator"],
)
def test_values_that_cannot_be_drawn_are_named(
    frame: pd.DataFrame, changed: dict[str, object], expected: str
) -> None:
    for helper in (plot_price_trend, plot_volatility, generate_report):
        with pytest.raises(DataError, match=expected):
            helper(frame.assign(**changed))


def test_repeated_columns_and_other_objects_are_refused_in_words(frame: pd.DataFrame) -> None:
    twice = pd.concat([frame, frame], axis="columns")
    for helper in (plot_price_trend, plot_volatility, generate_report):
        with pytest.raises(DataError, match="more than one column price_usd"):
            helper(twice)
        for given in (None, [1.0], frame["price_usd"]):
            with pytest.raises(DataError, match="expected a pandas DataFrame"):
                helper(given)
        with pytest.raises(DataError, match="no column price_usd or price"):
            helper(pd.DataFrame())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("prices", [["1,000.5", "2,000.5"], [0, 0], [None, None], [1e-300, 1e300]])
def test_odd_prices_are_reported_without_a_warning(prices: list[object]) -> None:
    times = pd.DatetimeIndex(["2024-01-01", "2024-01-02"], name="timestamp")
    text = generate_report(pd.DataFrame({"price": prices}, index=times))
    assert "Count: 2" in text
    if prices[0] == "1,000.5":
        assert "Latest price: 2,000.50 USD" in text
