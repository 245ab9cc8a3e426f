"""Writes docs/reference/ from the commands, the settings and the tables.

`scripts/reference` runs it; a test holds the committed pages equal to `pages()`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bitstorm.cli import bitstorm
from bitstorm.core.config import ENV_PREFIX
from bitstorm.core.schema import (
    CSV_ALIASES,
    CSV_OPTIONAL,
    CSV_REQUIRED,
    CSV_RULES,
    CSV_RULES_TO_WARN_OF,
    FORECASTS,
    LINEAGE,
    PRICES,
    Table,
    indicator_table,
)
from bitstorm.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by scripts/reference. Do not edit. -->"


def pages() -> dict[str, str]:
    """The text of each generated page by its name in docs/reference."""
    return {
        "commands.md": page("Commands", commands()),
        "settings.md": page("Settings", settings()),
        "schemas.md": page("Schemas", schemas()),
    }


def page(title: str, blocks: Iterator[str]) -> str:
    return "\n\n".join([f"# {title}", GENERATED, *blocks]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [list(head), ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- commands ------------------------------------------------------------------------------------


def leaves(
    group: click.Group = bitstorm, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be called, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def context_of(words: Sequence[str], command: click.Command) -> click.Context:
    return click.Context(command, info_name=" ".join(("bitstorm", *words)), terminal_width=80)


def records(words: Sequence[str], command: click.Command) -> list[tuple[str, str]]:
    """(option as `--help` shows it, its help) of each option."""
    context = context_of(words, command)
    found = [parameter.get_help_record(context) for parameter in command.params]
    # Outside of code Markdown reads brackets as a link.
    return [
        (f"`{name}`", re.sub(r"([][])", r"\\\1", " ".join(text.split())))
        for name, text in filter(None, found)
    ]


def commands() -> Iterator[str]:
    known = list(leaves())
    every = [set(records(words, command)) for words, command in known]
    common = set.intersection(*every)
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    yield (
        "`bitstorm COMMAND --help` shows the same. Exit codes: 0 done, 1 failed (one sentence on "
        "standard error), 2 wrong usage or settings, 3 nothing to do (only with `--fail-if-idle`)."
    )
    rows = [
        (f"[`{' '.join(words)}`](#{anchor(words)})", command.get_short_help_str(200))
        for words, command in known
    ]
    yield table(("command", "does"), rows)
    yield "## Options of every command"
    yield table(("option", "meaning"), [r for r in records(*known[0]) if r in common])
    for words, command in known:
        yield f"## {' '.join(words)}"
        usage = context_of(words, command).get_usage().removeprefix("Usage: ")
        yield f"```text\n{usage}\n```"
        submitted = f" Also: `spark-submit jobs/{words[0]}.py`." if words[0] in jobs else ""
        yield f"{command.help}{submitted}"
        own = [record for record in records(words, command) if record not in common]
        if own:
            yield table(("option", "meaning"), own)


def anchor(words: Sequence[str]) -> str:
    return "-".join(words)


# --- settings ------------------------------------------------------------------------------------


def settings() -> Iterator[str]:
    yield (
        f"Later layers win: the defaults, each `--config FILE`, `{ENV_PREFIX}SECTION__KEY` in the "
        "environment, `--set section.key=value`. `bitstorm config show` prints each value and its "
        "origin. [conf/base.yaml](../../conf/base.yaml) lists the same defaults as YAML. "
        "`COINGECKO_API_KEY` is read from the environment alone and is no setting."
    )
    schema = Settings.model_json_schema()
    defaults = Settings().model_dump()
    for section, reference in schema["properties"].items():
        properties = schema["$defs"][reference["$ref"].rpartition("/")[2]]["properties"]
        yield f"## {section}"
        yield table(
            ("key", "default", "allowed", "meaning"),
            [
                (
                    f"`{key}`",
                    f"`{shown(defaults[section][key])}`",
                    allowed(about),
                    about["description"],
                )
                for key, about in properties.items()
            ],
        )


def shown(value: Any) -> str:
    """A default as YAML has it."""
    return "null" if value is None else str(value)


def allowed(about: dict[str, Any]) -> str:
    """The values that a setting takes, from its JSON schema."""
    if "anyOf" in about:
        return " or ".join(allowed(choice) for choice in about["anyOf"])
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    kind = about["type"]
    if kind == "array":
        return f"list of {allowed(about['items'])}"
    if kind == "object":
        return f"map to {allowed(about['additionalProperties'])}"
    text = "null" if kind == "null" else str(kind)
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {about[name]}" for name, sign in limits.items() if name in about]
    if "pattern" in about:
        bounds.append(f"matching `{about['pattern']}`")
    return " ".join([text, ", ".join(bounds)]).strip()


# --- schemas -------------------------------------------------------------------------------------


def fields(of: Table) -> str:
    return table(
        ("field", "type", "unit", "null", "rule"),
        [(f"`{f.name}`", f.kind, f.unit, "yes" if f.nullable else "no", f.rule) for f in of.fields],
    )


def schemas() -> Iterator[str]:
    yield f"## {PRICES.name}"
    yield "The data set `prices`: one row for each observation that stands."
    yield fields(PRICES)
    windows = Settings().indicators.windows
    yield f"## {indicator_table(windows).name}"
    yield (
        f"The data set `indicators`, here for the default windows {', '.join(map(str, windows))} "
        "(steps of the grid). A value is null until its whole window exists. No window crosses a "
        "hole that is longer than `grid.max_gap`."
    )
    yield fields(indicator_table(windows))
    yield f"## {FORECASTS.name}"
    yield (
        "The data set `forecasts`: one row for each run, origin and step. `timestamp` is later "
        "than `known_until` and, where prices are collected live, than `made_at`. An interval is "
        "null where the forecast has none."
    )
    yield fields(FORECASTS)
    yield f"## {LINEAGE.name}"
    yield "`prices/lineage/ID`: the origin of each row of a snapshot."
    yield fields(LINEAGE)
    yield "## CSV batch"
    aliases = ", ".join(f"`{alias}` means `{name}`" for alias, name in CSV_ALIASES.items())
    yield (
        f"Columns go by name, in any order. Required: {listed(CSV_REQUIRED)} ({aliases}). "
        f"Optional: {listed(CSV_OPTIONAL)}."
    )
    yield (
        "The rules for a row, in the order of the checks. `ingest.rules` sets each to `refuse` "
        "(the default), `fail` or, where the row can be stored all the same, `warn`."
    )
    yield table(
        ("rule", "may be `warn`"),
        [(f"`{rule}`", "yes" if rule in CSV_RULES_TO_WARN_OF else "no") for rule in CSV_RULES],
    )


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name, file=sys.stderr)


if __name__ == "__main__":
    main()
