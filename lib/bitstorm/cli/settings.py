"""The command config."""

from __future__ import annotations

import os
from typing import Any

import click

from bitstorm.cli.common import Invocation, common_options


@click.group()
def config() -> None:
    """Show the settings."""


@config.command("show")
@common_options
def config_show(invocation: Invocation) -> Any:
    """Show every setting, its value and its origin."""
    from bitstorm.core.config import load

    loaded = load(files=invocation.config_files, environ=os.environ, overrides=invocation.overrides)
    rows = loaded.rows()
    width = max(len(key) for key, _, _ in rows)
    return invocation.show(
        {key: {"value": value, "origin": origin} for key, value, origin in rows},
        lambda: [f"{key:<{width}}  {value!s:<14}  {origin}" for key, value, origin in rows],
    )
