"""`python -m benchmarks NAME [--rows N] [--json]`."""

from __future__ import annotations

import importlib
import json

import click

NAMES = ("ingest",)


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--rows", type=click.IntRange(min=10_000), help="Rows of the series.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(name: str, rows: int | None, as_json: bool) -> None:
    """Measure one thing beside its peers, in one run."""
    module = importlib.import_module(f"benchmarks.{name}")
    outcome = module.run(module.ROWS if rows is None else rows)
    click.echo(json.dumps(outcome.to_json(), indent=2) if as_json else outcome.to_text())


if __name__ == "__main__":
    main()
