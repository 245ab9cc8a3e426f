"""The bar of a training: drawn where somebody watches, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io

from bitstorm.core.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def draw(console: Console) -> None:
    with console.bar() as bar:
        for step in range(1, 5):
            bar(step / 4, f"step {step}", step % 2 == 0)


def test_where_nobody_watches_only_what_is_worth_a_line_gets_one(tmp_path):
    stream = io.StringIO()
    draw(Console(stream=stream, log_file=tmp_path / "log"))
    assert stream.getvalue() == "    step 2\n    step 4\n"
    logged = (tmp_path / "log").read_text().splitlines()
    assert [line.split("Z ")[1] for line in logged] == ["    step 2", "    step 4"]


def test_on_a_terminal_the_bar_is_gone_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    draw(Console(stream=stream, log_file=tmp_path / "log"))
    shown = stream.getvalue()
    for step in range(1, 5):
        assert f"step {step}" in shown
    # Each drawing takes the one before it away, and so does the end.
    assert shown.count("\x1b[2K") >= 5
    assert "step" not in shown.rpartition("\x1b[2K")[2]
    logged = (tmp_path / "log").read_text().splitlines()
    assert [line.split("Z ")[1] for line in logged] == ["    step 2", "    step 4"]


def test_quiet_is_silent(tmp_path):
    for stream in (io.StringIO(), Terminal()):
        draw(Console(quiet=True, stream=stream))
        assert stream.getvalue() == ""


def test_a_warning_that_comes_once_comes_once() -> None:
    stream = io.StringIO()
    console = Console(quiet=True, stream=stream)
    for text in ("one", "two", "one", "one"):
        console.warn_once(text)
    assert stream.getvalue() == "bitstorm: one\nbitstorm: two\n"
