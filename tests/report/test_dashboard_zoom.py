"""What the charts draw of a long series, against the arrays it was made from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitstorm.report.dashboard import dashboard_html
from browser import Opened, reveal, wait
from dashboard_page import FIRST, HOUR, page_of

pytestmark = pytest.mark.slow
MINUTE = 60_000
# What a reader sees of the first chart: its lines, its range, and its words.
DRAWN = """() => {
  const place = document.getElementById('price');
  return JSON.stringify({
    lines: place.data.map(one => ({name: one.meta, x: one.x, y: one.y, ends: one.customdata})),
    x: place.layout.xaxis.range, y: place.layout.yaxis.range, width: place.clientWidth,
    words: document.getElementById('price-seen').textContent,
  });
}"""


class Long:
    """A page of so many points, in `levels`, opened."""

    def __init__(self, path: Path, open_file: Opened, points: int, most: int, step: int) -> None:
        page, texts, self.values = page_of(points, most=most, step_ms=step)
        self.points, self.step, self.levels = points, step, page["series"]["levels"]
        path.write_text(dashboard_html(page, texts))
        self.page = open_file(path)
        wait(self.page, "!!document.getElementById('price').data")
        self.last = FIRST + (points - 1) * step

    def show(self, start: float, end: float) -> dict[str, Any]:
        span = {"from": FIRST + start * self.step, "until": FIRST + end * self.step, "range": None}
        self.page.evaluate("span => show(span)", span)
        reveal(self.page, "price")
        # Playwright itself takes seconds for that many numbers.
        drawn: dict[str, Any] = json.loads(self.page.evaluate(DRAWN))
        return drawn

    def bar_points(self, drawn: dict[str, Any]) -> int:
        """How many points a bar has, as the page says."""
        found = re.search(r"One bar = ([\d,]+) × ", drawn["words"])
        return int(found[1].replace(",", "")) if found else 1

    def expected_bar(self, start: float, end: float, pixels: int) -> int:
        """Points a bar: the finest level that covers the range with two buckets a pixel at most."""
        shown = min(end, self.points - 1) - max(start, 0)
        for level in self.levels:
            covers = level["first_ms"] <= FIRST + max(start, 0) * self.step
            if covers and shown / level["width"] <= 2 * pixels:
                return int(level["width"])
        width: int = self.levels[-1]["width"]
        return width * -(-int(np.ceil(shown / width)) // (2 * pixels))


def bars(line: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time, least and greatest of each bar, once; the line goes through both, in this order."""
    times, places = np.unique(np.array(line["x"], float), return_index=True)
    ends = np.array(line["ends"], float)
    y = np.array([np.nan if v is None else v for v in line["y"]])
    np.testing.assert_array_equal(y[places], ends[places, 0])
    after = np.append(places[1:], len(y)) - 1
    np.testing.assert_array_equal(y[after], ends[places, 1])
    assert (np.diff(line["x"]) >= 0).all()
    return times, ends[places, 0], ends[places, 1]


def check(long: Long, drawn: dict[str, Any], start: float, end: float) -> None:
    """The drawn bars against the arrays: each one's extremes, that none is left out, and the y
    axis that fits what is in sight."""
    size = long.bar_points(drawn)
    assert size == long.expected_bar(start, end, drawn["width"])
    low, high = np.inf, -np.inf
    for line in drawn["lines"]:
        times, least, greatest = bars(line)
        centre = (times - FIRST) / long.step
        first = np.ceil(centre[0] - (size - 1) / 2 - 1e-6).astype(int)
        whole = np.full(len(times) * size, np.nan, np.float32)
        known = long.values[line["name"]][max(first, 0) :][: len(whole) + min(first, 0)]
        whole[max(-first, 0) :][: len(known)] = known
        cells = whole.reshape(-1, size)
        np.testing.assert_array_equal(least, np.fmin.reduce(cells, axis=1))
        np.testing.assert_array_equal(greatest, np.fmax.reduce(cells, axis=1))
        middles = first + size * np.arange(len(times)) + (size - 1) / 2
        np.testing.assert_allclose(centre, np.minimum(middles, long.points - 1), atol=1e-6)
        assert first <= max(start, 0)
        assert first + len(whole) > min(end, long.points - 1)
        seen = (centre >= start - 1e-6) & (centre <= end + 1e-6) & np.isfinite(least)
        assert seen.sum() <= 2 * drawn["width"] + 1
        low = min(low, *least[seen])
        high = max(high, *greatest[seen])
    bottom, top = drawn["y"]
    assert bottom <= low
    assert high <= top
    assert top - bottom <= 1.13 * (high - low)


@pytest.fixture
def one_level(tmp_path: Path, opened: Opened) -> Long:
    return Long(tmp_path / "page.html", opened, 8_760, 10_240, HOUR)


@pytest.fixture
def many_levels(tmp_path: Path, opened: Opened) -> Long:
    return Long(tmp_path / "page.html", opened, 120_000, 3_000, MINUTE)


def ranges(points: int, count: int, seed: int) -> list[tuple[float, float]]:
    """Random ranges of all widths, among them the whole, and the newest few points."""
    random = np.random.default_rng(seed)
    found = [(0.0, points - 1.0), (points - 21.0, points - 1.0)]
    for _ in range(count):
        width = np.exp(random.uniform(np.log(20), np.log(points - 1)))
        start = random.uniform(0, points - 1 - width)
        found.append((start, start + width))
    return found


def test_one_level_is_drawn_as_the_arrays_are(one_level: Long) -> None:
    for start, end in ranges(one_level.points, 12, seed=1):
        check(one_level, one_level.show(start, end), start, end)


def test_many_levels_are_drawn_as_the_arrays_are(many_levels: Long) -> None:
    assert [level["width"] for level in many_levels.levels] == [1, 4, 16, 64]
    sizes = set()
    for start, end in ranges(many_levels.points, 20, seed=2):
        drawn = many_levels.show(start, end)
        if drawn["words"] == "No values in this range.":
            continue
        check(many_levels, drawn, start, end)
        sizes.add(many_levels.bar_points(drawn))
    assert len(sizes) > 3


def test_a_range_in_a_hole_shows_no_value(one_level: Long) -> None:
    start = one_level.points // 2 + 100
    drawn = one_level.show(start, start + 40)
    inside = [
        y
        for line in drawn["lines"]
        for x, y in zip(line["x"], line["y"], strict=True)
        if start <= (x - FIRST) / HOUR <= start + 40
    ]
    assert set(inside) == {None}
    assert drawn["words"] == "No values in this range."


def test_a_range_beyond_the_series_stays_inside_it(one_level: Long) -> None:
    drawn = one_level.show(-500, 100)
    assert drawn["x"] == [FIRST, FIRST + 600 * HOUR]
    drawn = one_level.show(-1e6, 1e6)
    assert drawn["x"] == [FIRST, one_level.last]
    drawn = one_level.show(100, 100.5)
    assert drawn["x"][1] - drawn["x"][0] == 10 * HOUR
