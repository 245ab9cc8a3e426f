import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bitstorm.core.errors import DataError
from bitstorm.report.dashboard import dashboard_html, template
from bitstorm.report.style import Mark

HOLE_AFTER = 249
WINDOWS = (7, 24)
Render = Callable[..., "Page"]


class Page(HTMLParser):
    """What a browser would see: elements, text outside of scripts, the figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script":
            self.scripts[attributes.get("id") or "code"] = data
        elif tag != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def figure(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[f"{name}-data"])
        return found

    def trace(self, figure: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        found = next(t for t in self.figure(figure)["data"] if t["name"] == name)
        return values(found["x"]), values(found["y"])


def values(encoded: Any) -> np.ndarray:
    """What Plotly packs: base64 of a typed array, or a list where it is short."""
    if isinstance(encoded, dict):
        return np.frombuffer(base64.b64decode(encoded["bdata"]), dtype=encoded["dtype"])
    return np.array([np.nan if value is None else value for value in encoded], dtype=np.float64)


@pytest.fixture
def render(
    metrics: dict[str, Any], prices: pd.DataFrame, forecast: pd.DataFrame, history: pd.DataFrame
) -> Render:
    def page(**changed: Any) -> Page:
        given: dict[str, Any] = {
            "metrics": metrics,
            "prices": prices,
            "forecast": forecast,
            "history": history,
            "windows": WINDOWS,
        } | changed
        m = given["metrics"]
        mark = Mark(m["source"], m["coin"], m["vs_currency"])
        return Page(dashboard_html(**given, mark=mark))

    return page


def with_break(given: pd.Series, after: int) -> np.ndarray:
    array = given.to_numpy(np.float64)
    return np.concatenate([array[: after + 1], [np.nan], array[after + 1 :]])


def test_nothing_is_loaded_from_anywhere(render: Render, metrics: dict[str, Any]) -> None:
    page = render(metrics={**metrics, "source": "coingecko"})
    links = [
        (tag, name, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "content")
        and value is not None
        and "//" in value
    ]
    assert links == [("a", "href", "https://www.coingecko.com")]
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "base")]
    policy = next(
        a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_the_button_that_sends_a_chart_to_plotlys_server_is_off(render: Render) -> None:
    assert "showSendToCloud: false, plotlyServerURL: ''" in render().scripts["code"]


def test_simulated_data_is_marked_in_title_banner_and_figures(render: Render) -> None:
    page = render()
    assert "SIMULATED: Bitcoin in USD · Bitstorm" in page.text
    assert page.text.count("SIMULATED market (seed 7): not real prices") == 2
    figures = [name for name in page.scripts if name.endswith("-data")]
    assert len(figures) == 8
    for name in figures:
        notes = json.loads(page.scripts[name])["layout"]["annotations"]
        assert [note["text"] for note in notes] == ["SIMULATED"]


def test_real_data_is_attributed_and_not_called_simulated(
    render: Render, metrics: dict[str, Any]
) -> None:
    page = render(metrics={**metrics, "source": "coingecko", "simulated": False})
    assert "SIMULATED" not in page.text
    assert "Data provided by CoinGecko" in page.text
    notes = page.figure("price")["layout"]["annotations"]
    assert [note["text"] for note in notes] == ["Data provided by CoinGecko"]


def test_figures_hold_the_input_with_a_break_at_the_hole(
    render: Render, prices: pd.DataFrame
) -> None:
    page = render()
    expected = {("price", "price"): "price", ("momentum", "drawdown"): "drawdown"}
    expected[("momentum", "RSI 14")] = "rsi_14"
    for window in WINDOWS:
        expected[("price", f"mean of the last {window}")] = f"ma_{window}"
        expected[("volatility", f"last {window} changes")] = f"volatility_{window}"
    for (figure, trace), column in expected.items():
        x, y = page.trace(figure, trace)
        np.testing.assert_array_equal(y, with_break(prices[column], HOLE_AFTER))
        np.testing.assert_array_equal(np.delete(x, HOLE_AFTER + 1), prices["timestamp"])
    assert page.figure("price")["layout"]["xaxis"]["type"] == "date"


def test_forecast_figures_hold_the_input(render: Render, forecast: pd.DataFrame) -> None:
    page = render()
    hole = HOLE_AFTER - 200
    for name in ("actual", "forecast"):
        np.testing.assert_array_equal(
            page.trace("forecast", name)[1], with_break(forecast[name], hole)
        )
        np.testing.assert_array_equal(page.trace("recent", name)[1], forecast[name].tail(96))
    predicted, actual = page.trace("returns", "one step of the test part")
    np.testing.assert_array_equal(predicted, forecast["forecast_log_return"])
    np.testing.assert_array_equal(actual, forecast["actual_log_return"])
    missed = forecast["actual_log_return"] - forecast["forecast_log_return"]
    sums = (forecast["actual_log_return"] ** 2 - missed**2).cumsum()
    np.testing.assert_allclose(page.trace("saved", "model")[1], with_break(sums, hole))


def test_the_band_is_one_closed_outline_for_each_stretch(
    render: Render, forecast: pd.DataFrame
) -> None:
    x, y = render().trace("forecast", "80 % interval")
    hole = HOLE_AFTER - 200
    (gap,) = np.flatnonzero(np.isnan(x))
    before, after = forecast.iloc[: hole + 1], forecast.iloc[hole + 1 :]
    np.testing.assert_array_equal(y[:gap], [*before["upper"], *before["lower"][::-1]])
    np.testing.assert_array_equal(y[gap + 1 :], [*after["upper"], *after["lower"][::-1]])
    np.testing.assert_array_equal(x[:gap], [*before["timestamp"], *before["timestamp"][::-1]])


def test_the_training_figure_has_the_history_and_the_best_epoch(
    render: Render, history: pd.DataFrame
) -> None:
    page = render()
    np.testing.assert_array_equal(page.trace("training", "training")[1], history["loss"])
    np.testing.assert_array_equal(page.trace("training", "validation")[1], history["val_loss"])
    x, y = page.trace("training", "best epoch (2)")
    assert (x.tolist(), y.tolist()) == ([2.0], [0.97])


def test_cards_table_verdict_and_provenance_say_the_metrics(render: Render) -> None:
    text = render().text
    for part in (
        "42,123.46 USD",
        "-1.23 %",
        "-0.0123",
        "12,396",
        "Not distinguishable from 'the price stays as it is'.",
        "210.50 USD",
        "208.75 USD",
        "79.0 %",
        "42,130.50 USD",
        "000002-PRICES",
        "000002-INDICATORS",
        "RUN-1",
    ):
        assert part in text, part


def test_text_from_outside_stays_text(render: Render, metrics: dict[str, Any]) -> None:
    attack = '</script><img src="http://evil.example/x" onerror=alert(1)>'
    page = render(metrics={**metrics, "verdict": attack, "run": attack, "vs_currency": attack})
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert page.text.count(attack) == 2
    assert page.figure("price")["layout"]["yaxis"]["title"]["text"].count("<") == 0


def test_a_page_without_a_forecast_of_the_next_step_is_whole(
    render: Render, metrics: dict[str, Any]
) -> None:
    metrics["next"] = None
    metrics["latest"]["change_24h_percent"] = None
    assert "n/a" in render(metrics=metrics).text


def test_a_missing_column_is_refused_in_words(render: Render, prices: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="the price frame has no column volatility_24, rsi_14"):
        render(prices=prices.drop(columns=["volatility_24", "rsi_14"]))


@pytest.mark.slow
def test_the_template_is_read_from_a_zip_as_well(tmp_path: Path) -> None:
    library = Path(__file__).parents[2] / "lib"
    with zipfile.ZipFile(tmp_path / "bitstorm.zip", "w") as archive:
        for path in (library / "bitstorm").rglob("*"):
            archive.write(path, path.relative_to(library))
    names = ["dashboard.html", "dashboard.css", "dashboard.js"]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from bitstorm.report import dashboard; "
        "print(json.dumps([dashboard.__file__, *map(dashboard.template, sys.argv[2:])]))"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "bitstorm.zip"), *names]
    file, *texts = json.loads(subprocess.check_output(command, text=True))
    assert file.startswith(str(tmp_path))
    assert texts == [template(name) for name in names]
