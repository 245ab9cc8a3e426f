"""Typed settings from four layers: defaults, --config files, the environment, --set.

A secret is no setting: only the client reads `COINGECKO_API_KEY` from the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from bitstorm.core.errors import Problem, SettingsError, first_line
from bitstorm.core.schema import CSV_RULES, CSV_RULES_TO_WARN_OF
from bitstorm.core.settings import Settings

ENV_PREFIX = "BITSTORM__"
DEFAULT = "default"


@dataclass(frozen=True)
class Loaded:
    """Settings, with the origin of every key except the defaults."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, Any, str]]:
        """(key, value, origin) of every setting, in the order of the sections."""
        settings = {
            f"{section}.{name}": value
            for section, values in self.settings.model_dump().items()
            for name, value in values.items()
        }
        return [(key, value, self.origins.get(key, DEFAULT)) for key, value in settings.items()]


def load(
    *,
    files: Sequence[Path] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] = MappingProxyType({}),
) -> Loaded:
    """The settings of all layers; a later layer wins, key by key.

    `files` are YAML overlays in order, `environ` can hold `BITSTORM__SECTION__KEY`, `overrides` are
    `section.key=value` texts; these two hold YAML scalars or lists. `values` are Python's own, by
    `section.key`. Raises SettingsError with every problem at once.
    """
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for layer in (
        *(_from_file(path, problems) for path in files),
        _from_environ(environ, problems),
        _from_overrides(overrides, problems),
        _by_key(values, "settings", problems),
    ):
        for key, (value, origin) in layer.items():
            section, _, name = key.partition(".")
            merged.setdefault(section, {})[name] = value
            origins[key] = origin
    settings = _validate(merged, origins, problems)
    problems.extend(_contradictions(settings, origins, wrong={p.key for p in problems}))
    if problems:
        raise SettingsError(sorted(problems, key=lambda p: p.key))
    return Loaded(settings, MappingProxyType(origins))


_MAPS = ("spark.conf", "ingest.rules")

Layer = dict[str, tuple[Any, str]]


def _from_file(path: Path, problems: list[Problem]) -> Layer:
    origin = str(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(Problem("--config", origin, f"cannot be read ({error.strerror})"))
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(Problem("--config", origin, f"is not YAML ({first_line(error)})"))
        return {}
    if not isinstance(content, dict | None):
        problems.append(Problem("--config", origin, "expected sections with keys at the top"))
        return {}
    layer: Layer = {}
    for section, body in (content or {}).items():
        if isinstance(body, dict):
            layer.update({f"{section}.{name}": (value, origin) for name, value in body.items()})
        elif body is not None:
            message = f"found {body!r}; expected a section of keys"
            problems.append(Problem(str(section), origin, message))
    return layer


def _from_environ(environ: Mapping[str, str], problems: list[Problem]) -> Layer:
    layer: Layer = {}
    ours = (pair for pair in sorted(environ.items()) if pair[0].startswith(ENV_PREFIX))
    for variable, text in ours:
        parts = variable.removeprefix(ENV_PREFIX).lower().split("__")
        if len(parts) != 2 or not all(parts):
            problems.append(Problem(variable, "environment", f"expected {ENV_PREFIX}SECTION__KEY"))
            continue
        layer[".".join(parts)] = (_scalar(text), f"environment {variable}")
    return layer


def _from_overrides(overrides: Sequence[str], problems: list[Problem]) -> Layer:
    pairs = [text.partition("=")[::2] for text in overrides if "=" in text]
    for text in overrides:
        if "=" not in text:
            problems.append(Problem(text, "--set", f"found {text!r}; expected section.key=value"))
    return _by_key({key.strip(): _scalar(value) for key, value in pairs}, "--set", problems)


def _by_key(values: Mapping[str, Any], origin: str, problems: list[Problem]) -> Layer:
    layer: Layer = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if not (section and name):
            problems.append(Problem(key, origin, f"found {key!r}; expected section.key"))
            continue
        # Entries of a map are set one by one; Spark's keys contain dots.
        parent = next((one for one in _MAPS if key.startswith(f"{one}.")), None)
        if parent is not None:
            entries, _ = layer.get(parent, ({}, ""))
            value = {**entries, key.removeprefix(f"{parent}."): value}
        layer[parent or key] = (value, origin)
    return layer


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _validate(
    merged: dict[str, dict[str, Any]], origins: Mapping[str, str], problems: list[Problem]
) -> Settings:
    """The settings, with defaults for wrong keys; adds each wrong key to `problems`."""
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        seen: set[str] = set()
        for detail in error.errors():
            path = [str(part) for part in detail["loc"]]
            key = ".".join(path[:2])
            if key in seen:
                continue
            seen.add(key)
            problems.append(Problem(key, _origin(key, origins), _explain(path, detail)))
            if len(path) == 1:
                merged.pop(path[0], None)
            else:
                merged.get(path[0], {}).pop(path[1], None)
        return Settings.model_validate(merged)


def _origin(key: str, origins: Mapping[str, str]) -> str:
    below = (o for k, o in origins.items() if k.startswith(f"{key}."))
    return origins.get(key) or next(below, DEFAULT)


def _explain(path: Sequence[str], detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        sections = {info.alias or name: info for name, info in Settings.model_fields.items()}
        section: Any = None if len(path) == 1 else sections[path[0]].annotation
        known = sections if section is None else section.model_fields
        return f"there is no such setting; {_hint(path[-1], list(known))}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"found {detail['input']!r}; {message[0].lower()}{message[1:]}"


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _contradictions(
    settings: Settings, origins: Mapping[str, str], *, wrong: set[str]
) -> list[Problem]:
    """Settings that contradict each other."""
    found: list[Problem] = []

    def report(key: str, message: str, *others: str) -> None:
        if wrong.isdisjoint({key, *others}):
            found.append(Problem(key, _origin(key, origins), message))

    training, windows = settings.training, settings.indicators.windows
    if sorted(set(windows)) != list(windows):
        report("indicators.windows", f"found {list(windows)}; expected ascending, none repeated")
    if training.train_share + training.validation_share >= 1:
        report(
            "training.validation_share",
            f"train_share {training.train_share} + validation_share {training.validation_share} "
            "leave nothing to test on; expected a sum below 1",
            "training.train_share",
        )
    for rule, action in settings.ingest.rules.items():
        if rule not in CSV_RULES:
            report("ingest.rules", f"there is no rule {rule!r}; {_hint(rule, CSV_RULES)}")
        elif action == "warn" and rule not in CSV_RULES_TO_WARN_OF:
            report(
                "ingest.rules",
                f"a row that breaks {rule} cannot be stored, so a warning is not enough; use "
                f"refuse or fail (warn is for {', '.join(CSV_RULES_TO_WARN_OF)})",
            )
    if training.batch_size != "auto" and training.batch_size < 1:
        report("training.batch_size", f"found {training.batch_size}; expected auto or at least 1")
    if settings.source.mode == "simulated" and settings.source.plan != "keyless":
        report(
            "source.plan",
            f"found {settings.source.plan} with source.mode simulated, which needs no key; "
            "set source.mode=coingecko or source.plan=keyless",
            "source.mode",
        )
    return found
