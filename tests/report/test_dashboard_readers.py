"""What the page is for a reader with a keyboard, a screen reader, a phone, paper, or no script."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser import Opened, Show, draw_all, reveal, wait
from dashboard_page import page_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(shown: Show, dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    page = shown(dark=dark)
    draw_all(page)
    page.get_by_role("button", name="Fold 1").click()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    assert [
        (one["id"], [node["target"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ] == []


def test_the_keyboard_reaches_and_works_every_control(shown: Show) -> None:
    page = shown()
    draw_all(page)
    expected = page.evaluate("""() => [...document.querySelectorAll(
      'a[href], button:enabled, select, input, summary, [tabindex="0"]')]
      .filter(one => one.checkVisibility())
      .map((one, place) => { one.dataset.place = place; return place; })""")
    assert len(expected) > 40
    page.locator(".skip").focus()
    reached, rings = [], []
    for _ in expected[1:]:
        page.keyboard.press("Tab")
        place, ring = page.evaluate("""() => [document.activeElement.dataset.place,
          getComputedStyle(document.activeElement).outlineStyle]""")
        reached.append(place)
        rings.append(ring)
    assert reached == [str(place) for place in expected[1:]]
    assert set(rings) == {"solid"}
    keys = {
        "[data-range='7d']": ("Enter", "state.range === '7d'"),
        "#closer": ("Space", "state.range === null"),
        "input[value='ma_7']": ("Space", "state.shown.has('ma_7')"),
        "#choose-fan": ("ArrowDown", "state.fan === 1"),
        "button[aria-controls='fold-1']": ("Enter", "!document.getElementById('fold-1').hidden"),
        "#older": ("Space", "document.getElementById('table-place').textContent.includes('26')"),
        "#theme": ("Enter", "document.documentElement.dataset.theme === 'dark'"),
        "#numbers summary, #settings summary": (
            "Enter",
            "document.querySelector('#settings details').open",
        ),
    }
    for control, (key, outcome) in keys.items():
        page.locator(control).first.focus()
        page.keyboard.press(key)
        wait(page, outcome)
    page.keyboard.press("Control+Home")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_downwards_only(shown: Show, width: int) -> None:
    page = shown(width=width, has_touch=True, is_mobile=True)
    draw_all(page)
    page.get_by_role("button", name="Fold 1").click()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        "charts.filter(one => one.place.querySelector('svg').clientWidth > innerWidth)"
    )
    assert wide == []
    reveal(page, "price")
    before, box = page.evaluate("scrollY"), page.locator("#price").bounding_box()
    finger = page.context.new_cdp_session(page)
    for move in ("touchStart", *10 * ["touchMove"], "touchEnd"):
        box["y"] -= 20
        point = {"x": width / 2, "y": box["y"] + box["height"] - 20}
        points = [] if move == "touchEnd" else [point]
        finger.send("Input.dispatchTouchEvent", {"type": move, "touchPoints": points})
    wait(page, f"scrollY > {before} + 100")
    assert page.evaluate("state.range") == "all"


def test_light_and_dark_follow_the_system_until_chosen(shown: Show) -> None:
    page = shown(dark=True)
    wait(page, "!!document.getElementById('price').data")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('price').layout.font.color"
    dark = page.evaluate(ground), page.evaluate(ink)
    page.emulate_media(color_scheme="light")
    wait(page, "document.documentElement.dataset.theme === 'light'")
    reveal(page, "price")
    light = page.evaluate(ground), page.evaluate(ink)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.get_by_role("button", name="Dark").click()
    reveal(page, "price")
    assert (page.evaluate(ground), page.evaluate(ink)) == dark
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Dark").click()
    reveal(page, "price")
    assert (page.evaluate(ground), page.evaluate(ink)) == light


def test_paper_gets_all_charts_in_light_without_controls(shown: Show) -> None:
    page = shown(dark=True)
    page.emulate_media(media="print")
    wait(page, "charts.every(one => one.place.data)")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate("charts.every(one => one.place.layout.width <= 680)")
    assert not page.get_by_role("button", name="1 month").is_visible()
    assert page.locator("#backtest").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.emulate_media(media="screen")
    wait(page, "document.documentElement.dataset.theme === 'dark'")
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts_the_verdict_and_the_numbers_are_there(
    example_file: Path, opened: Opened
) -> None:
    page = opened(example_file, java_script_enabled=False)
    text = page.locator("body").inner_text()
    newest = page_of()[0]
    for part in (
        "No proven worth.",
        newest["now"]["price_text"],
        "210.50 USD",
        "It needs JavaScript.",
        f"{newest['table']['rows'][0][1]:,.2f}",
        "network\t+0.0010",
    ):
        assert part in text, part
    assert "Download CSV" not in text
    assert page.locator("#fold-1").is_visible()
