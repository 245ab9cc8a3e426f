"""The page's text, its policy and its size, without a browser; see test_dashboard_browser.py."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bitstorm.report.dashboard import SCRIPTS, dashboard_html, template
from dashboard_page import ATTACK, HASHES, page_of


class Page(HTMLParser):
    """What a browser would see: elements, text outside of scripts, the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}
        self.code: list[str] = []
        self.sheets: list[str] = []
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
        if tag == "script" and attributes.get("type"):
            self.scripts[str(attributes["id"])] = data
        elif tag == "script":
            self.code.append(data)
        elif tag == "style":
            self.sheets.append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def policy(self) -> dict[str, str]:
        (found,) = (
            str(a["content"])
            for _, a in self.elements
            if a.get("http-equiv") == "Content-Security-Policy"
        )
        parts = (part.strip().partition(" ") for part in found.split(";"))
        return {name: sources for name, _, sources in parts}


def rendered(*, served: bool = False, text: str | None = None, **changed: Any) -> Page:
    page, levels, _ = page_of(300, text=text)
    return Page(dashboard_html(page | changed, levels, served=served))


def test_nothing_is_loaded_from_anywhere() -> None:
    page = rendered(attribution="Data provided by CoinGecko", simulated=False)
    links = [
        (tag, name, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "content", "style")
        and value is not None
        and not value.startswith("#")
        and attributes.get("name") != "viewport"
        and attributes.get("http-equiv") is None
    ]
    icon = ("link", "href", "data:,")
    assert links == [icon, ("a", "href", "https://www.coingecko.com")]
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "base")]
    assert "url(" not in page.sheets[0]
    assert "@import" not in page.sheets[0]
    # Plotly's button for its cloud would send the chart's numbers there.
    assert "showSendToCloud: false, plotlyServerURL: ''" in page.code[-1]


def test_the_policy_allows_the_pages_own_scripts_and_sheet_alone() -> None:
    page = rendered()

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert len(page.code) == 2
    assert page.policy == {
        "default-src": "'none'",
        "script-src": " ".join(map(hashed, page.code)),
        "style-src": hashed(page.sheets[0]),
        "img-src": "data: blob:",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    handlers = [name for _, attributes in page.elements for name in attributes]
    assert not [name for name in handlers if name.startswith("on") or name == "style"]


def test_only_a_served_page_may_ask_its_server() -> None:
    page = rendered(served=True)
    assert page.policy["connect-src"] == "'self'"
    assert json.loads(page.scripts["page-data"])["served"] is True
    assert json.loads(rendered().scripts["page-data"])["served"] is False


def test_plotly_finds_an_element_for_each_sheet_it_would_add() -> None:
    page = rendered()
    ids = {str(attributes["id"]) for _, attributes in page.elements if "id" in attributes}
    # Each of them looks first whether there is an element with its id.
    added = re.findall(r'createElement\("style"\)[;,]\w+\.id="(\w+)"', page.code[0])
    assert added
    assert {*added, "plotly.js-style-global"} <= ids
    assert page.code[0].count('createElement("style")') == len(added) + 1


def test_the_numbers_of_the_charts_are_in_the_page() -> None:
    data, levels, _ = page_of(300)
    page = Page(dashboard_html(data, levels))
    found = json.loads(page.scripts["page-data"])
    for name in ("series", "volatility", "fan", "test", "training", "backtest", "table"):
        assert found[name] == data[name]
    assert page.scripts["level-0"] == levels[0]


def test_verdict_cards_and_tables_say_the_values() -> None:
    page = rendered()
    for part in (
        "SIMULATED: Bitcoin in USD · Bitstorm",
        "SIMULATED market (seed 7): not real prices",
        "Verdict No proven worth. Informative No. The e-value is 0.9.",
        "RMSE 210.50 USD 208.75 USD",
        "Change in 24 h -1.25 %",
        "Missing 75 of 300 × 1h",
        "2024-02-01 06:00 UTC to 2024-02-04 08:00 UTC: 75 × 1h, open",
        "Refused 2 rows 0 batches refused, 1 waiting",
        "promoted: not less accurate than persistence",
        "Skill -0.0123 against",
        "training 2024-01-01 to 2024-01-16 validation 2024-01-16 to 2024-01-18",
        "drift -0.0020",
        "80 % 1 100.0 %",
        "e-information 1.02",
        "20240303T120000Z-d354e3",
        "training.epochs 30 default",
        f"{HASHES['prices'][:12]}… {HASHES['prices']}",
        "2024-01-13T11:00:00Z",
        " false ",
    ):
        assert part in page.text, part


def test_the_verdict_comes_first() -> None:
    heads = [attributes["id"] for tag, attributes in rendered().elements if tag == "section"]
    assert heads == [
        "verdict", "prices", "next", "test-part", "backtest", "log", "training-part", "lineage",
        "settings", "numbers",
    ]  # fmt: skip


def test_real_data_is_attributed_and_not_called_simulated() -> None:
    page = rendered(simulated=False, banner=None, attribution="Data provided by CoinGecko",
                    origin="CoinGecko")  # fmt: skip
    assert "SIMULATED" not in page.text
    assert "Source: CoinGecko. Data provided by CoinGecko" in page.text
    assert not [1 for _, attributes in page.elements if attributes.get("class") == "banner"]


def test_a_part_that_is_missing_says_how_to_get_it() -> None:
    data, levels, _ = page_of(300)
    gone: dict[str, Any] = {"past": None, "ahead": [], "horizon": None, "step_ms": None}
    now = {**data["now"], "gaps": [], "gap_count": 0, "change_24h_percent": None}
    missing: dict[str, Any] = {"backtest": None, "log": None, "volatility": gone, "now": now}
    page = Page(dashboard_html(data | missing, levels))
    for part in (
        "No back-test in this workspace: bitstorm backtest makes one.",
        "No forecasts log in this workspace: bitstorm forecast logs each forecast",
    ):
        assert part in page.text, part
    charts = [a["id"] for _, a in page.elements if (a.get("class") or "").startswith("chart")]
    assert charts == [
        "price", "volatility", "momentum", "drawdown", "fan", "test", "saved", "training",
    ]  # fmt: skip


def test_a_back_test_without_outcomes_has_no_evidence() -> None:
    data, levels, _ = page_of(300)
    page = Page(dashboard_html(data | {"backtest": {**data["backtest"], "evidence": None}}, levels))
    assert "There is no evidence over time" in page.text
    assert not [1 for _, attributes in page.elements if attributes.get("id") == "evidence"]


def test_text_from_outside_stays_text() -> None:
    plain, page = rendered(text="x" * len(ATTACK)), rendered(text=ATTACK)
    assert page.text.count(ATTACK) > 25
    tags = [[tag for tag, _ in one.elements] for one in (plain, page)]
    assert tags[0] == tags[1]
    assert "<" not in page.scripts["page-data"]
    assert json.loads(page.scripts["page-data"])["fan"]["model"] == ATTACK


def test_a_year_of_hours_has_less_than_six_megabytes() -> None:
    data, levels, _ = page_of(8_760)
    assert len(dashboard_html(data, levels).encode()) < 6_000_000


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        rendered(step_ms=float("nan"))


@pytest.mark.slow
def test_the_templates_are_read_from_a_zip_as_well(tmp_path: Path) -> None:
    library = Path(__file__).parents[2] / "lib"
    with zipfile.ZipFile(tmp_path / "bitstorm.zip", "w") as archive:
        for path in (library / "bitstorm").rglob("*"):
            archive.write(path, path.relative_to(library))
    names = ["dashboard.html", "dashboard.css", *SCRIPTS]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from bitstorm.report import dashboard; "
        "print(json.dumps([dashboard.__file__, *map(dashboard.template, sys.argv[2:])]))"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "bitstorm.zip"), *names]
    file, *texts = json.loads(subprocess.check_output(command, text=True))
    assert file.startswith(str(tmp_path))
    assert texts == [template(name) for name in names]
