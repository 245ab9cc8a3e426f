"""What the README says holds."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from bitstorm.cli import bitstorm
from bitstorm.core.config import Settings
from bitstorm.core.schema import PRICES, Table, indicator_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def markdown(table: Table) -> str:
    rows = ["| field | type | unit | null | rule |", "|---|---|---|---|---|"]
    for f in table.fields:
        null = "yes" if f.nullable else "no"
        rows.append(f"| `{f.name}` | {f.kind} | {f.unit} | {null} | {f.rule} |")
    return "\n".join(rows)


def test_its_tables_are_those_of_the_schemas():
    assert markdown(PRICES) in README
    assert markdown(indicator_table(Settings().indicators.windows)) in README


def test_its_commands_are_all_commands():
    table = README.split("| command | does |")[1].split("\n\n")[0]
    named = {match.split()[0] for match in re.findall(r"^\| `([a-z -]+)", table, re.MULTILINE)}
    assert named == set(bitstorm.commands)


def test_every_file_that_it_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_options_that_it_shows_are_known():
    for command, options in {
        "run": ["--csv", "--timestamp-column", "--stamp", "--bar", "--unit", "--format"],
        "collect": ["--every"],
        "backfill": ["--days", "--until", "--gaps", "--dry-run"],
        "stats": ["--period", "--bars", "--lags", "--snapshot", "--output"],
        "train": ["--resume", "--snapshot", "--accept-snapshot"],
        "import": ["--preview", "--timezone", "--delimiter", "--decimal"],
        "simulate": ["--port", "--replay"],
        "ingest": ["--workspace", "--config", "--json", "--fail-if-idle", "--log-file"],
    }.items():
        shown = CliRunner().invoke(bitstorm, [command, "--help"]).output
        assert [o for o in options if o not in shown] == []
