"""A real browser for the tests of the dashboard: Debian's chromium, driven by Playwright.

Where one of the two is missing, the tests that need it skip and say so.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bitstorm.report.dashboard import dashboard_html
from dashboard_page import page_of

Opened = Callable[..., Any]
Show = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser of a module's tests."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: scripts/setup --dev"
    )
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # Its sandbox refuses to run as root, as in most containers.
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


class Windows:
    """Opens files, each in a window of its own. `faults` are the errors and warnings that a page
    logs, and its requests for anything but itself."""

    def __init__(self, browser: Any) -> None:
        self.faults: list[str] = []
        self._browser = browser
        self._contexts: list[Any] = []

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, **more: Any) -> Any:
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": 900}
        context = self._browser.new_context(viewport=size, color_scheme=scheme, **more)
        self._contexts.append(context)
        page, url = context.new_page(), path.as_uri()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._logged)
        page.on("request", lambda request: self._requested(request.url, url))
        page.goto(url)
        return page

    def _logged(self, line: Any) -> None:
        if line.type in ("error", "warning"):
            self.faults.append(f"{line.type}: {line.text[:300]}")

    def _requested(self, url: str, own: str) -> None:
        if url.split("#")[0] != own and not url.startswith(("blob:", "data:")):
            self.faults.append(f"request: {url[:300]}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens a file as `Windows` does; afterwards no page may have a fault."""
    windows = Windows(browser)
    yield windows.open
    windows.close()
    assert windows.faults == []


@pytest.fixture(scope="module")
def example_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `page_of()`."""
    page, levels, _ = page_of()
    path = tmp_path_factory.mktemp("page") / "dashboard.html"
    path.write_text(dashboard_html(page, levels))
    return path


@pytest.fixture
def shown(example_file: Path, opened: Opened) -> Show:
    """Opens the example, with the keywords of `opened`; its controls work then."""

    def open_page(**more: Any) -> Any:
        page = opened(example_file, **more)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    return open_page


@pytest.fixture(scope="module")
def shared_page(browser: Any, example_file: Path) -> Iterator[tuple[Windows, Any]]:
    windows = Windows(browser)
    page = windows.open(example_file)
    page.wait_for_selector("html[data-ready]", state="attached")
    yield windows, page
    windows.close()


@pytest.fixture
def page(shared_page: tuple[Windows, Any]) -> Iterator[Any]:
    """The example in one window for a whole module, since opening it takes seconds. It shows all;
    a test leaves the switches as they were."""
    windows, found = shared_page
    found.get_by_role("button", name="All", exact=True).click()
    draw_all(found)
    yield found
    assert windows.faults == []


def wait(page: Any, expression: str) -> None:
    """Wait until the expression is true in the page. Playwright's own way makes code of a text,
    which the page's policy refuses."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def reveal(page: Any, chart: str) -> None:
    """Scroll to the chart, and wait until it shows what it should."""
    place = f"document.getElementById('{chart}')"
    page.evaluate(f"{place}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    wait(page, f"!charts.find(one => one.place === {place}).stale")


def draw_all(page: Any) -> None:
    """Scroll through the page, so that every chart is drawn."""
    for name in page.evaluate("charts.map(one => one.name)"):
        reveal(page, name)
