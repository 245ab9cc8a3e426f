"""What a command says while it works: progress on standard error, results on standard output."""

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

    def say(self, text: str) -> None:
        """One line of progress."""
        self.log(text)
        if not self.quiet:
            clear = "\r\x1b[K" if self.stream.isatty() else ""
            print(f"{clear}{text}", file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """One line that `quiet` does not silence: something went wrong, or soon will."""
        self.log(text)
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        print(f"{clear}bitstorm: {text}", file=self.stream, flush=True)

    def progress(self, text: str) -> None:
        """A line that the next one overwrites; only where somebody watches, and in the log."""
        self.log(text)
        if not self.quiet and self.stream.isatty():
            print(f"\r\x1b[K{text}", end="", file=self.stream, flush=True)

    @contextmanager
    def bar(self) -> Iterator[Callable[[float, str, bool], None]]:
        """A bar that is drawn over itself where somebody watches; a line now and then elsewhere.

        The block calls what it is given with the share that is done (0 to 1), a text, and whether
        that text is worth a line of its own.
        """
        if self.quiet or not self.stream.isatty():
            yield lambda share, text, mark: self.say(f"    {text}") if mark else None
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        # Whatever line `progress` has left there.
        print("\r\x1b[K", end="", file=self.stream, flush=True)
        columns = (TextColumn("   "), BarColumn(bar_width=20), TextColumn("{task.description}"))
        with Progress(
            *columns, console=Terminal(file=self.stream), transient=True, auto_refresh=False
        ) as progress:
            task = progress.add_task("", total=1.0)

            def drawn(share: float, text: str, mark: bool) -> None:
                if mark:
                    self.log(f"    {text}")
                progress.update(task, completed=share, description=text, refresh=True)

            yield drawn

    def log(self, text: str) -> None:
        """A line for the log file alone."""
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {text}\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Announce a stage and, when it is done, its result and seconds.

        The block calls what it is given with the result, one short phrase.
        """
        outcome: list[str] = []
        began = time.monotonic()
        self.progress(f"  {name:<11} …")
        yield outcome.append
        seconds = time.monotonic() - began
        self.say(f"  {name:<11} {seconds:6.1f} s  {' '.join(outcome)}")
