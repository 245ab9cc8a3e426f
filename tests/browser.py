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


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens a file in a window of its own; afterwards no page may have logged an error, or asked
    for anything but itself."""
    contexts: list[Any] = []
    faults: list[str] = []

    def fault(kind: str, text: str) -> None:
        faults.append(f"{kind}: {text[:300]}")

    def open_file(
        path: Path, *, width: int = 1280, dark: bool = False, address: str = "", **more: Any
    ) -> Any:
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, **more))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: fault("error", str(error)))
        page.on(
            "console",
            lambda line: fault(line.type, line.text) if line.type in ("error", "warning") else None,
        )
        url = path.as_uri()
        page.on(
            "request",
            lambda request: (
                None
                if request.url.split("#")[0] == url or request.url.startswith(("blob:", "data:"))
                else fault("request", request.url)
            ),
        )
        page.goto(url + address)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []


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
