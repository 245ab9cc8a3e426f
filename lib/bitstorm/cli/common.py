"""What all commands share: common options, errors as exit codes, results as text or JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitstorm.core.errors import BitstormError, NothingToDo, UsageError, first_line
from bitstorm.spark import failures

if TYPE_CHECKING:
    from bitstorm.context import Context
    from bitstorm.store.stage_log import StageLog

DONE, FAILED, USAGE, IDLE = 0, 1, 2, 3
INTERRUPTED = 130
_PREFIX = "bitstorm: "


snapshot_option = click.option(
    "--snapshot", metavar="ID", help="Read this snapshot.  [default: the newest]"
)


_OPTIONS = (
    click.option(
        "--config",
        "config_files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="YAML file with settings; can be repeated.",
    ),
    click.option("--workspace", help="Folder of all data.  [default: workspace]"),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change a setting; can be repeated.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
    click.option("--quiet", is_flag=True, help="Print no progress."),
    click.option(
        "--log-file", type=click.Path(path_type=Path), help="Also write the progress to this file."
    ),
    click.option(
        "--stage-log",
        type=click.Path(path_type=Path),
        help="Append one JSON object a line for each stage to this file.",
    ),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    click.option("--fail-if-idle", is_flag=True, help="Exit with 3 when there was nothing to do."),
)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options, turn errors into exit codes, and log the command as a stage."""

    @functools.wraps(command)
    def wrapped(*, debug: bool, fail_if_idle: bool, stage_log: Path | None, **values: Any) -> int:
        from bitstorm.store.stage_log import StageLog

        began, name = time.monotonic(), click.get_current_context().info_name or ""
        stages = StageLog(name)
        common = [field.name for field in dataclasses.fields(Invocation) if field.name != "stages"]
        given = {option: values.pop(option, None) for option in common}
        try:
            if stage_log is not None:
                stages.open(stage_log)
            result = command(Invocation(**given, stages=stages), **values)
        except (Exception, KeyboardInterrupt) as error:
            code, text = _answer(error, fail_if_idle=fail_if_idle)
            raises = debug and code not in (DONE, IDLE, INTERRUPTED)
            stages.write(
                name,
                seconds=time.monotonic() - began,
                exit=FAILED if raises else code,
                error=None if code in (DONE, IDLE) else text.removeprefix(_PREFIX),
            )
            if raises:
                raise
            click.echo(text, err=True)
            return code
        idle = getattr(result, "idle", getattr(result, "stale", False))
        code = IDLE if fail_if_idle and idle else DONE
        stages.write(name, seconds=time.monotonic() - began, of=result, exit=code)
        return code

    return functools.reduce(lambda function, option: option(function), _OPTIONS[::-1], wrapped)


def _answer(error: BaseException, *, fail_if_idle: bool) -> tuple[int, str]:
    """The exit code of an error, and its text for standard error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, NothingToDo):
        return IDLE if fail_if_idle else DONE, f"{_PREFIX}{error}"
    if isinstance(error, BitstormError):
        return error.exit_code, f"{_PREFIX}{error}"
    sentence = failures.system_refusal(error) if isinstance(error, OSError) else None
    if sentence is None:
        sentence = (
            f"unexpected {type(error).__name__}: {first_line(error)}; run again with "
            "--debug for the traceback, and please report it"
        )
    return FAILED, f"{_PREFIX}{sentence}"


@dataclasses.dataclass(frozen=True)
class Invocation:
    """The values of the common options; `context()` loads the settings and opens the workspace."""

    config_files: tuple[Path, ...]
    workspace: str | None
    overrides: tuple[str, ...]
    as_json: bool
    quiet: bool
    log_file: Path | None
    snapshot: str | None
    stages: StageLog

    def context(self) -> Context:
        """Load the settings, open workspace and console, and filter the warnings of libraries."""
        from bitstorm.context import Context
        from bitstorm.core import third_party_noise
        from bitstorm.core.config import load
        from bitstorm.core.console import Console
        from bitstorm.core.workspace import DEFAULT_WORKSPACE, local_path, open_workspace
        from bitstorm.spark.environment import under_spark_submit

        third_party_noise.install_filters()
        third_party_noise.hush_loggers()
        loaded = load(files=self.config_files, environ=os.environ, overrides=self.overrides)
        # spark-submit writes a job's standard error to standard output, where the JSON is.
        quiet = self.quiet or (self.as_json and under_spark_submit())
        log_file = self.log_file
        if log_file is not None:
            log_file = local_path(log_file, error=UsageError, what="--log-file")
        workspace = open_workspace(self.workspace or DEFAULT_WORKSPACE)
        self.stages.workspace = workspace = workspace.with_store(loaded.settings.store.url)
        return Context(
            workspace,
            loaded.settings,
            Console(quiet, log_file),
            self.snapshot,
            origins=loaded.origins,
            stages=self.stages,
        )

    def show(self, result: Any, lines: Callable[[], Sequence[str]]) -> Any:
        """Print the result on standard output, as JSON or as `lines()`; returns the result."""
        texts = [json.dumps(plain(result), indent=2)] if self.as_json else lines()
        try:
            for text in texts:
                click.echo(text)
        except BrokenPipeError:
            # The reader has closed the pipe, like `head`: drop the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return result


def parse_option(option: str, parse: Callable[[str], int], text: str) -> int:
    """The value of an option. Raises UsageError where `parse` raises ValueError."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def plain(value: Any) -> Any:
    """A result as dicts, lists and plain values, for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(item) for name, item in fields.items()}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
