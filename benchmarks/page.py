"""The dashboard in a browser: seconds until it is drawn and answers.

A page of a year of hours, and one of `rows` minutes, each beside an empty page of the same size in
the same browser: what reading the file takes by itself. `plotly` is a page with Plotly's bundle
alone. A page is ready when its controls work and the charts in sight are drawn; then a click on a
range is timed until the charts show it. The ratios are seconds over those of another page, so that
they depend little on the machine.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness import Outcome, interleaved, medians
from bitstorm.core.errors import UsageError
from bitstorm.report.dashboard import dashboard_html

ROWS = 5_000_000
HOURS = 8_760
RUNS = 5
MINUTE = 60_000
PAGES = ("hours", "long")
DRAWN = "() => new Promise(done => requestAnimationFrame(() => done()))"
READY = """() => new Promise(done => {
  const look = () => 'ready' in document.documentElement.dataset
    && !charts.some(one => one.near && one.stale) && charts.some(one => one.near)
    ? done() : requestAnimationFrame(look);
  look();
})"""
CLICK = """() => new Promise(done => {
  document.querySelector('[data-range="7d"]').click();
  requestAnimationFrame(() => requestAnimationFrame(done));
})"""


def run(rows: int = ROWS) -> Outcome:
    """Seconds by page; `hours` is a year of hours, `long` has so many minutes."""
    program = shutil.which("chromium")
    if program is None:
        raise UsageError("there is no chromium on the PATH: install it, then run this again")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, sync_playwright() as driver:
        files = _files(Path(scratch), rows)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        clicks: dict[str, list[float]] = {}
        ways: dict[str, Callable[[int], float]] = {
            name: _way(browser, path, clicks.setdefault(name, [])) for name, path in files.items()
        }
        results = medians(interleaved(ways, runs=RUNS))
        browser.close()
        results |= {f"click_{name}": medians({"": clicks[name]})[""] for name in PAGES}
        return Outcome(
            name="page",
            rows=rows,
            results=results,
            ratios={
                **{f"{name}_vs_empty": results[name] / results[f"empty_{name}"] for name in PAGES},
                **{f"{name}_vs_plotly": results[name] / results["plotly"] for name in PAGES},
            },
            notes={"bytes": {name: files[name].stat().st_size for name in PAGES}},
        )


def _files(folder: Path, rows: int) -> dict[str, Path]:
    """The pages, and for each an empty one of its size."""
    from plotly.offline import get_plotlyjs

    example = _example()
    files = {"plotly": folder / "plotly.html"}
    files["plotly"].write_text(f"<!DOCTYPE html><p>x</p><script>{get_plotlyjs()}</script>")
    for name, points, step in (("hours", HOURS, example.HOUR), ("long", rows, MINUTE)):
        page, levels, _ = example.page_of(points, step_ms=step)
        files[name] = folder / f"{name}.html"
        files[name].write_text(dashboard_html(page, levels))
        fill = "x" * files[name].stat().st_size
        files[f"empty_{name}"] = folder / f"empty-{name}.html"
        files[f"empty_{name}"].write_text(
            f'<!DOCTYPE html><title>x</title><p>x</p><script type="text/plain">{fill}</script>'
        )
    return files


def _example() -> ModuleType:
    """The page that the tests use."""
    path = Path(__file__).parents[1] / "tests" / "dashboard_page.py"
    spec = importlib.util.spec_from_file_location("dashboard_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _way(browser: Any, path: Path, clicks: list[float]) -> Callable[[int], float]:
    """Opens the file in a window of its own."""

    def way(number: int) -> float:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto("about:blank")
        began = time.perf_counter()
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        ours = path.stem in PAGES
        page.evaluate(READY if ours else DRAWN)
        seconds = time.perf_counter() - began
        if ours:
            began = time.perf_counter()
            page.evaluate(CLICK)
            if number:
                clicks.append(time.perf_counter() - began)
        page.close()
        return seconds

    return way
