"""Writes docs/pictures/ from a run, a back-test and the dashboard on the simulated market.

`scripts/pictures` runs it; it takes about four minutes. The dashboard needs Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import bitstorm

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
# Which pictures the documents show, of the report and of the back-test.
REPORT = ("volatility", "returns", "forecast")
BACKTEST = ("folds", "skill_by_step", "coverage", "evidence")


def main() -> None:
    """Make all pictures; the old ones stay where a step fails."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("found no chromium for the pictures of the dashboard: install it")
    with tempfile.TemporaryDirectory() as folder, bitstorm.open_workspace(folder) as ws:
        ws.run()
        backtested = ws.backtest()
        ws.forecast()
        page = Path(ws.report().folder) / "dashboard.html"
        FOLDER.mkdir(exist_ok=True)
        for source, names in ((page.parent, REPORT), (Path(backtested.folder), BACKTEST)):
            for name in names:
                shutil.copyfile(source / f"{name}.png", FOLDER / f"{name}.png")
        photograph(page, chromium)


def photograph(page: Path, chromium: str) -> None:
    """The top of the dashboard on a desk, light, and on a phone, dark."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        desk = browser.new_page(viewport={"width": 1280, "height": 1560}, color_scheme="light")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        for name, tab in (("dashboard", desk), ("dashboard-phone", phone)):
            tab.goto(page.as_uri())
            tab.wait_for_timeout(1_500)  # the charts in view
            tab.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    main()
