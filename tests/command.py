"""The command line in this process, as a user has it: exit code and both streams."""

from __future__ import annotations

import io
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from bitstorm.cli import exit_code
from bitstorm.core.errors import BitstormError


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


def command(*arguments: object) -> Done:
    out, err = io.StringIO(), io.StringIO()
    code = 1
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = exit_code([str(argument) for argument in arguments])
        except BitstormError:
            # With --debug: as the interpreter would print it, with all that led to it.
            err.write(traceback.format_exc())
    return Done(code, out.getvalue(), err.getvalue())
