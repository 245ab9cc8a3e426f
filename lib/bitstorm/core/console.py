"""Progress and warnings of a command, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass
class Console:
    """`quiet` silences progress, never errors. `log_file` gets every line with its UTC time."""

    quiet: bool = False
    log_file: Path | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _warned: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        """One line of progress."""
        self.log(text)
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that `quiet` does not silence, about a present or coming problem."""
        self.log(text)
        self._print(f"bitstorm: {text}")

    def warn_once(self, text: str) -> None:
        """A warning that one command, or one notebook, shows only once."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def progress(self, text: str) -> None:
        """A line that the next one overwrites; only in a terminal and in the log."""
        self.log(text)
        if not self.quiet and self.stream.isatty():
            self._print(text, end="")

    @contextmanager
    def bar(self) -> Iterator[Callable[[float, str, bool], None]]:
        """A progress bar in a terminal; lines elsewhere.

        The block gets a function of the finished share (0 to 1), a text, and whether the text gets
        a line of its own.
        """
        if self.quiet or not self.stream.isatty():
            yield lambda share, text, mark: self.say(f"    {text}") if mark else None
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        # Clear a line of `progress`.
        self._print("", end="")
        columns = (TextColumn("   "), BarColumn(bar_width=20), TextColumn("{task.description}"))
        with Progress(
            *columns, console=Terminal(file=self.stream), transient=True, auto_refresh=False
        ) as progress:
            task = progress.add_task("", total=1.0)

            def draw(share: float, text: str, mark: bool) -> None:
                if mark:
                    self.log(f"    {text}")
                progress.update(task, completed=share, description=text, refresh=True)

            yield draw

    def _print(self, text: str, end: str = "\n") -> None:
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        print(f"{clear}{text}", end=end, file=self.stream, flush=True)

    def log(self, text: str) -> None:
        """A line in the log file only."""
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {text}\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Announce a stage and, at its end, its result and seconds.

        The block gets a function of its result, one short phrase.
        """
        outcome: list[str] = []
        began = time.monotonic()
        self.progress(f"  {name:<11} …")
        yield outcome.append
        self.say(f"  {name:<11} {time.monotonic() - began:6.1f} s  {' '.join(outcome)}")
