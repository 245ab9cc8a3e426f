"""The page in a real browser: its controls, its policy, its server. `opened` fails on any logged
error and any request."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bitstorm.report.dashboard import dashboard_html
from browser import Opened, Show, draw_all, reveal, wait
from dashboard_page import ATTACK, FIRST, HOUR, POINTS, WINDOWS, page_of

pytestmark = pytest.mark.slow
DAY = 24 * HOUR
LAST = FIRST + (POINTS - 1) * HOUR


def shown_range(page: Any, chart: str = "price") -> list[float]:
    reveal(page, chart)
    found: list[float] = page.evaluate(
        "name => document.getElementById(name).layout.xaxis.range", chart
    )
    return found


def drawn_lines(page: Any, chart: str) -> list[str]:
    reveal(page, chart)
    found: list[str] = page.evaluate(
        "name => document.getElementById(name).data.map(one => one.meta || one.name)", chart
    )
    return found


def test_buttons_show_the_newest_part_of_all_charts(page: Any) -> None:
    linked = page.evaluate("[...document.querySelectorAll('[data-linked]')].map(one => one.id)")
    assert linked == [
        "price", "volatility", "sigma", "momentum", "drawdown", "test", "saved", "evidence",
    ]  # fmt: skip
    buttons = page.get_by_role("group", name="Range of all charts over time").get_by_role("button")
    # A month before the last point, 2024-03-03T11:00.
    february = FIRST + 33 * DAY + 11 * HOUR
    starts = {"1 day": LAST - DAY, "7 days": LAST - 7 * DAY, "1 month": february}
    for name, start in {**starts, "6 months": FIRST}.items():
        buttons.get_by_text(name, exact=True).click()
        pressed = [one.inner_text() for one in buttons.all() if _pressed(one)]
        assert pressed == [name]
        found = {one: tuple(shown_range(page, one)) for one in linked}
        # Behind the newest point there are forecasts of the volatility alone.
        assert found.pop("sigma") == (start, LAST + DAY)
        assert set(found.values()) == {(start, LAST)}
    assert page.locator("#range").inner_text() == "2024-01-01 00:00 UTC to 2024-03-03 11:00 UTC"
    buttons.get_by_text("All", exact=True).click()
    # All of a chart are its own values.
    assert shown_range(page, "price") == [FIRST, LAST]
    assert shown_range(page, "test") == [LAST - 400 * HOUR, LAST]
    page.get_by_label("Zoom in").click()
    page.get_by_label("Earlier").click()
    wide = LAST - FIRST
    assert shown_range(page) == [FIRST, FIRST + wide / 2]
    page.get_by_label("Later").click()
    assert shown_range(page) == [FIRST + wide / 4, FIRST + 0.75 * wide]
    page.get_by_label("Zoom out").click()
    assert shown_range(page) == [FIRST, LAST]


def _pressed(button: Any) -> bool:
    return bool(button.get_attribute("aria-pressed") == "true")


def test_dragging_zooms_all_charts_once_and_back(page: Any) -> None:
    page.evaluate("""() => {
      window.drawn = [];
      const react = Plotly.react;
      Plotly.react = (place, ...more) => { drawn.push(place.id); return react(place, ...more); };
      document.getElementById('price').scrollIntoView({block: 'center', behavior: 'instant'});
    }""")
    box = page.locator("#price .nsewdrag").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.25 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], middle, steps=4)
    page.mouse.up()
    wait(page, "document.getElementById('price').layout.xaxis.range[0] > 1704100000000")
    wide = LAST - FIRST
    start, end = shown_range(page)
    assert abs(start - FIRST - 0.25 * wide) < 0.01 * wide
    assert abs(end - FIRST - 0.75 * wide) < 0.01 * wide
    assert shown_range(page, "volatility") == [start, end]
    page.wait_for_timeout(300)
    near = page.evaluate("charts.filter(one => one.near && one.linked).map(one => one.name)")
    # Each chart in sight is drawn once: no chart answers the others.
    assert sorted(page.evaluate("drawn")) == sorted(near)
    assert not any(_pressed(one) for one in page.locator("[data-range]").all())
    reveal(page, "price")
    page.locator("#price .nsewdrag").first.dblclick()
    wait(page, "state.range === 'all'")
    assert shown_range(page) == [FIRST, LAST]


def test_a_chart_without_values_in_the_range_offers_its_own(page: Any) -> None:
    page.evaluate("show({from: series.first, until: series.first + 24 * series.step, range: null})")
    reveal(page, "test")
    words = page.locator("#test-seen")
    assert words.inner_text().startswith(
        "Nothing in this range. Values: 2024-02-15 19:00 UTC to 2024-03-03 11:00 UTC."
    )
    words.get_by_role("button", name="Show them").click()
    assert shown_range(page, "test") == [LAST - 400 * HOUR, LAST]


def test_checkboxes_and_choices_switch_what_is_drawn(shown: Show) -> None:
    page = shown()
    averages = [f"mean of the last {w}" for w in WINDOWS]
    assert drawn_lines(page, "price") == ["ma_24", "ma_168", "price"]
    for name in averages[1:]:
        page.get_by_label(name).uncheck()
    page.get_by_label("Bollinger band").check()
    lines = drawn_lines(page, "price")
    assert lines == ["bollinger_upper_20", "bollinger_lower_20", "price"]
    page.get_by_label("last 24 changes").uncheck()
    assert drawn_lines(page, "volatility") == ["volatility_7", "volatility_168"]
    page.get_by_label("MACD signal").uncheck()
    assert drawn_lines(page, "momentum") == ["rsi_14", "macd"]
    assert "95 % interval" in drawn_lines(page, "fan")
    assert "24 steps, at 2024-03-04 11:00 UTC" in page.locator("#fan-seen").inner_text()
    page.get_by_label("Forecast made at").select_option("1")
    assert drawn_lines(page, "fan") == [
        "80 % interval", "price", "the price stays as it is", "forecast", "what came",
    ]  # fmt: skip
    words = page.locator("#fan-seen").inner_text()
    assert words.startswith("Forecast made at 2024-03-02 23:00 UTC.")
    assert "Prices that came since: 12." in words
    reveal(page, "coverage")
    assert "80 % held 81.0 %" in page.locator("#coverage-seen").inner_text()
    page.get_by_label("Intervals around").select_option("network")
    reveal(page, "coverage")
    assert "80 % held 78.0 %" in page.locator("#coverage-seen").inner_text()


def test_what_is_not_known_is_shown_as_no_number(tmp_path: Path, opened: Opened) -> None:
    data, levels, _ = page_of()
    fan, back, none = data["fan"], data["backtest"], [None] * 4
    for step in fan["steps"]:
        step |= {"forecast": None, "intervals": dict.fromkeys(("50", "80", "95"), (None, None))}
    fan["earlier"][0]["steps"][0] |= {"lower": None, "upper": None}
    back["models"]["network"]["skill"] = [None] * 24
    back["coverage"]["around"]["persistence"]["overall"] = none
    back["coverage"]["around"]["network"]["overall"][0] = None
    back["coverage"]["oracle"]["terciles"]["95"] = none
    back["evidence"]["accuracy"] = [None] * len(back["evidence"]["timestamp"])
    data["training"]["val_loss"] = none
    data["test"]["skill"] = None
    path = tmp_path / "page.html"
    path.write_text(dashboard_html(data, levels))
    page = opened(path)
    draw_all(page)

    def words(chart: str) -> str:
        return str(page.locator(f"#{chart}-seen").inner_text())

    def bounds() -> list[str]:
        line = "document.getElementById('fan').data.find(one => one.name === 'forecast')"
        return list(page.evaluate(f"{line}.customdata"))

    assert "After 24 steps, at 2024-03-04 11:00 UTC: n/a. No price" in words("fan")
    assert bounds()[1:] == ["n/a"] * 24
    assert words("coverage") == "No shares: the series is too short for intervals."
    chance = page.evaluate("document.getElementById('coverage').data[0].x")
    assert chance == []
    assert "e-accuracy is n/a at the end" in words("evidence")
    assert "the best validation loss is n/a, epoch 2" in words("training")
    assert "Skill n/a against" in page.locator("#test-part").inner_text()
    page.get_by_label("Intervals around").select_option("network")
    page.get_by_label("Forecast made at").select_option("1")
    reveal(page, "coverage")
    assert words("coverage").startswith("Intervals of 50 % held n/a, 80 % held 78.0 %")
    reveal(page, "fan")
    assert bounds()[1] == "n/a"
    assert " to " in bounds()[2]


def test_a_reload_keeps_range_switches_and_theme(shown: Show) -> None:
    page = shown()
    page.get_by_role("button", name="7 days").click()
    page.get_by_label("mean of the last 7", exact=True).check()
    page.get_by_label("Forecast made at").select_option("1")
    page.get_by_role("button", name="Dark").click()
    address = page.evaluate("location.hash")
    page.reload()
    wait(page, "!!document.getElementById('price').data")
    assert page.evaluate("location.hash") == address
    assert shown_range(page) == [LAST - 7 * DAY, LAST]
    assert drawn_lines(page, "price") == ["ma_7", "ma_24", "ma_168", "price"]
    assert page.get_by_label("Forecast made at").input_value() == "1"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    # Nonsense in an address does no harm.
    page.goto(page.url.split("#")[0] + "#from=x&until=9e99&show=nothing&fan=77&theme=<b>")
    page.reload()
    wait(page, "!!document.getElementById('price').data")
    assert shown_range(page) == [FIRST, LAST]


def test_folds_open_to_their_parts_and_models(page: Any) -> None:
    button = page.get_by_role("button", name="Fold 2")
    detail = page.locator("#fold-2")
    assert button.get_attribute("aria-expanded") == "false"
    assert not detail.is_visible()
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    text = detail.inner_text()
    assert "2024-01-01 to 2024-01-21" in text  # training
    assert "2024-01-24 to 2024-01-29" in text  # test
    assert "network\t+0.0010" in text
    button.click()
    assert not detail.is_visible()


def test_the_csv_file_and_the_pages_of_the_table_are_the_rows(page: Any, tmp_path: Path) -> None:
    table = page_of()[0]["table"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "bitstorm.csv"
    download.value.save_as(tmp_path / "file.csv")
    text = (tmp_path / "file.csv").read_bytes().decode()
    assert text.count("\r\n") == text.count("\n") == len(table["rows"]) + 1
    columns, *rows = csv.reader(text.splitlines())
    assert columns == table["columns"]
    read = [
        [row[0], float(row[1]), row[2] == "true", *(float(x) if x else None for x in row[3:])]
        for row in rows
    ]
    assert read == table["rows"]
    body = page.locator("#table tbody")
    assert body.locator("tr").count() == 25
    first = body.inner_text()
    page.get_by_role("button", name="Older").click()
    assert page.locator("#table-place").inner_text() == "Rows 26 to 50 of 500, the newest first"
    cells = body.locator("tr").first.locator("th, td").all_inner_texts()
    time, price, _, *others = table["rows"][25]
    assert cells[:3] == [time, f"{price:,.2f}", "false"]
    assert len(cells) == len(table["columns"]) == 3 + len(others)
    page.get_by_role("button", name="Newer").click()
    assert body.inner_text() == first
    assert page.get_by_role("button", name="Newer").is_disabled()


def test_csv_cells_are_quoted_and_run_no_formula(page: Any) -> None:
    rows = [["a,b", 'say "hi"', "two\nlines"], ["=1+1", "-x", "@x"], [-1.5, None, 1e-7]]
    text = page.evaluate("rows => csv(rows)", rows)
    assert text == ('"a,b","say ""hi""","two\nlines"\r\n\'=1+1,\'-x,\'@x\r\n-1.5,,1e-7\r\n')
    assert json.loads("1e-7") == 1e-7


def test_the_policy_refuses_other_scripts_and_requests(example_file: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(example_file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    found = page.evaluate("""async () => {
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
      const button = document.createElement('button');
      button.setAttribute('onclick', 'window.ran = true');
      button.click();
      const image = new Image();
      const failed = new Promise(done => { image.onerror = () => done('refused'); });
      image.src = 'http://127.0.0.1:9/x.png';
      const asked = await fetch('http://127.0.0.1:9/').catch(error => error.name);
      return [window.ran, await failed, asked];
    }""")
    page.close()
    assert found == [None, "refused", "TypeError"]


def test_texts_from_outside_stay_texts(tmp_path: Path, opened: Opened) -> None:
    page, levels, _ = page_of(300, text=ATTACK)
    path = tmp_path / "page.html"
    path.write_text(dashboard_html(page, levels))
    window = opened(path)
    window.on("dialog", lambda dialog: pytest.fail(dialog.message))
    draw_all(window)
    window.get_by_label("Intervals around").select_option(ATTACK)
    reveal(window, "coverage")
    assert window.evaluate("[...document.images, ...document.querySelectorAll('b')].length") == 0
    assert window.locator("h1").inner_text() == ATTACK
    assert window.title() == f"SIMULATED: {ATTACK} · Bitstorm"
    hidden = window.evaluate("document.body.textContent.split('</script><img').length - 1")
    assert hidden > 25
    # Also the texts that Plotly draws, which reads markup.
    legend = window.locator("#skill .legendtext").all_text_contents()
    assert f"{ATTACK}drift" in legend


def test_a_served_page_follows_its_server(browser: Any) -> None:
    data, levels, _ = page_of(300)
    made = [data["made"]]
    tags: list[str | None] = []

    def answer(route: Any) -> None:
        asked = route.request.headers.get("if-none-match")
        tags.append(asked)
        if asked == f'"{made[0]}"':
            route.fulfill(status=304)
        else:
            html = dashboard_html({**data, "made": made[0]}, levels, served=True)
            route.fulfill(status=200, content_type="text/html; charset=utf-8", body=html)

    page = browser.new_page()
    page.clock.install()
    page.route("http://127.0.0.1:9/", answer)
    page.goto("http://127.0.0.1:9/")
    page.wait_for_selector("html[data-ready]", state="attached")
    page.get_by_role("button", name="7 days").click()
    for count in (2, 3):
        page.clock.run_for(30_000)
        while len(tags) < count:
            page.wait_for_timeout(20)
    assert tags == [None, *2 * ['"2024-03-03T12:00:00.000Z"']]
    made[0] = "2024-03-03T13:00:00.000Z"
    with page.expect_navigation():
        page.clock.run_for(30_000)
    page.wait_for_selector("html[data-ready]", state="attached")
    assert "page made 2024-03-03 13:00 UTC" in page.locator("header").inner_text()
    assert page.evaluate("state.range") == "7d"
    page.unroute("http://127.0.0.1:9/")
    page.clock.run_for(31_000)
    wait(page, "document.getElementById('refresh').textContent")
    assert page.locator("#refresh").inner_text().startswith("The server does not answer")
    page.close()
