"""`python -m benchmarks NAME [--rows N] [--json]`."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

import click

NAMES = (
    "ingest", "windows", "indicators", "exactness", "feed", "train", "backtest", "volatility",
    "intervals", "page", "cluster", "scale",
)  # fmt: skip
# `cluster` is a module that tests use, too.
MODULES = {"cluster": "cluster_run"}


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--rows", type=click.IntRange(min=10_000), help="Rows of the series.")
@click.option("--scale", is_flag=True, help="Also ten times the rows, on a cluster.")
@click.option("--part", multiple=True, help="One part alone; several are possible.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(name: str, rows: int | None, as_json: bool, **options: Any) -> None:
    """Measure one thing beside its peers, in one run."""
    module = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}")
    given = {option: value for option, value in options.items() if value}
    known = inspect.signature(module.run).parameters
    for option in given:
        if option not in known:
            raise click.UsageError(f"{name} has no --{option}")
    outcome = module.run(module.ROWS if rows is None else rows, **given)
    click.echo(json.dumps(outcome.to_json(), indent=2) if as_json else outcome.to_text())


if __name__ == "__main__":
    main()
