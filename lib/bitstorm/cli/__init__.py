"""The commands: arguments in, one pipeline each, results out. Heavy imports wait in the bodies."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

import click

from bitstorm import __version__
from bitstorm.cli.common import DONE, INTERRUPTED, USAGE
from bitstorm.cli.data import backfill, collect, gaps, import_, ingest, retract
from bitstorm.cli.models import (
    check_lookahead,
    forecast,
    indicators,
    report,
    run,
    runs,
    stats,
    train,
)
from bitstorm.cli.operations import config, gc, history, rollback, simulate, status, verify


class _Commands(click.Group):
    """Commands in the order of the data's way, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bitstorm")
def bitstorm() -> None:
    """Bitcoin price batches through Spark and Petastorm to a forecast you can trust."""


for _command in (
    collect, backfill, import_, ingest, indicators, stats, train, forecast, report, run, status,
    gaps, history, runs, check_lookahead, verify, retract, rollback, gc, config, simulate,
):  # fmt: skip
    bitstorm.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of `bitstorm` and of the jobs; ends the process with the exit code."""
    _end(exit_code(arguments))


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run a command in this process; what the process is to end with."""
    try:
        code = bitstorm.main(args=arguments, prog_name="bitstorm", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    return code if isinstance(code, int) else DONE


def _end(code: int) -> None:
    """Exit; where TensorFlow is loaded without the seconds that it takes to clear its memory."""
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
