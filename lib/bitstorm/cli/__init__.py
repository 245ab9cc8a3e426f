"""The commands: each turns arguments into one call of a pipeline, and prints the result.

Heavy packages are imported inside the functions.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper

import click

from bitstorm import __version__
from bitstorm.cli import models
from bitstorm.cli.common import DONE, INTERRUPTED, USAGE
from bitstorm.cli.data import backfill, collect, gaps, import_, ingest, retract
from bitstorm.cli.operations import config, doctor, gc, history, rollback, simulate, status, verify
from bitstorm.spark import java

GROUPS: Mapping[str, tuple[click.Command, ...]] = {
    "Data": (collect, backfill, import_, ingest, gaps, retract),
    "Indicators and models": (
        models.indicators, models.stats, models.check_lookahead, models.train, models.runs,
        models.tune, models.backtest, models.check_leakage, models.reproduce, models.forecast,
        models.verdict, models.report, models.run,
    ),
    "Operations": (status, history, verify, rollback, gc, doctor, config, simulate),
}  # fmt: skip


class _Commands(click.Group):
    """Lists the commands in groups, in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{c.name:<{width}}", c.get_short_help_str(limit=100)) for c in commands]
                )


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the versions that a bug report needs. Loads no library."""
    if not wanted or ctx.resilient_parsing:
        return
    home = java.find_java_home(os.environ, project=java.project_root())
    found = {
        "Python": platform.python_version(),
        "Java": "not found" if home is None else java.version(home) or str(home),
    }
    for title, name in (("Spark", "pyspark"), ("TensorFlow", "tensorflow"), ("PyTorch", "torch")):
        with suppress(PackageNotFoundError):
            found[title] = version(name)
    click.echo(f"bitstorm {__version__}")
    click.echo(", ".join(f"{title} {number}" for title, number in found.items()))
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`bitstorm COMMAND --help` explains a command and shows an example.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of bitstorm, Python, Java, Spark and TensorFlow.",
)
def bitstorm() -> None:
    """Bitcoin price batches through Spark and Petastorm to a forecast you can trust."""


for _command in (command for commands in GROUPS.values() for command in commands):
    bitstorm.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit code: the entry point of `bitstorm` and of
    the jobs."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without "é" or "…" shows their numbers.
        sys.stdout.reconfigure(errors="backslashreplace")
    _end(exit_code(arguments))


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run a command in this process; the exit code for the process."""
    try:
        code = bitstorm.main(args=arguments, prog_name="bitstorm", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    return code if isinstance(code, int) else DONE


def _end(code: int) -> None:
    """Exit, without the seconds that TensorFlow needs to free its memory."""
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
