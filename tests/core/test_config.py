"""Settings: layers, origins, and every problem told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from bitstorm.core.config import load
from bitstorm.core.errors import SettingsError
from bitstorm.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def problems(**layers) -> dict[str, str]:
    with pytest.raises(SettingsError) as raised:
        load(**layers)
    assert raised.value.exit_code == 2
    return {problem.key: str(problem) for problem in raised.value.problems}


def base_yaml() -> str:
    """The text of `conf/base.yaml`: every key with its default and meaning."""
    lines = [
        "# Every setting with its default. This file is documentation: the defaults are built in.",
        "# Overlay it with --config FILE, BITSTORM__SECTION__KEY=value or --set section.key=value.",
    ]
    for attribute, section in Settings.model_fields.items():
        lines += ["", f"{section.alias or attribute}:"]
        assert isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for name, field in section.annotation.model_fields.items():
            text = yaml.safe_dump(field.default, default_flow_style=True, width=1000).strip()
            entry = f"{name}: {text.removesuffix('...').strip()}"
            lines.append(f"  {entry:<32} # {field.description}")
    return "\n".join(lines) + "\n"


def test_base_yaml_lists_every_key_with_its_default():
    text = (ROOT / "conf" / "base.yaml").read_text()
    assert text == base_yaml()
    assert yaml.safe_load(text) == Settings().model_dump()


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_the_overlays_that_we_ship_are_valid(name):
    assert load(files=[ROOT / "conf" / name]).origins


def test_the_contracts_defaults_stand():
    settings = Settings()
    assert settings.source.mode == "simulated" and settings.source.plan == "keyless"
    assert (settings.source.coin, settings.source.vs_currency) == ("bitcoin", "usd")
    assert settings.ingest.settle_seconds == 10
    assert (settings.grid.frequency, settings.grid.max_gap) == ("1h", 6)
    assert settings.indicators.windows == [7, 24, 168]
    training = settings.training
    assert (training.look_back, training.horizon, training.epochs) == (60, 1, 30)
    assert (training.batch_size, training.target, training.backend) == (
        "auto",
        "log_return",
        "tensorflow",
    )


def test_a_later_layer_wins_key_by_key_and_is_named(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("training: {epochs: 1, look_back: 11}\ngrid: {frequency: 5m}\n")
    second.write_text("training:\n  epochs: 2\n")
    loaded = load(
        files=[first, second],
        environ={"BITSTORM__TRAINING__LOOK_BACK": "12", "HOME": "/"},
        overrides=["training.look_back=13", "indicators.windows=[3, 9]"],
    )
    values = {key: (value, origin) for key, value, origin in loaded.rows()}
    assert values["training.epochs"] == (2, str(second))
    assert values["training.look_back"] == (13, "--set")
    assert values["grid.frequency"] == ("5m", str(first))
    assert values["indicators.windows"] == ([3, 9], "--set")
    assert values["training.horizon"] == (1, "default")
    environment = load(environ={"BITSTORM__TRAINING__LOOK_BACK": "12"})
    assert environment.settings.training.look_back == 12
    assert environment.origins["training.look_back"].endswith("BITSTORM__TRAINING__LOOK_BACK")


def test_spark_settings_with_dots_can_be_set_one_by_one():
    loaded = load(overrides=["spark.conf.spark.sql.shuffle.partitions=3", "spark.conf.a.b=x"])
    assert loaded.settings.spark.conf == {"spark.sql.shuffle.partitions": 3, "a.b": "x"}


def test_every_problem_is_told_at_once_with_what_is_right():
    found = problems(
        overrides=[
            "training.lookback=3",
            "trainning.epochs=3",
            "training.epochs=many",
            "indicators.windows=[0, 24]",
            "grid.frequency=soon",
            "source.mode=coinbase",
            "rubbish",
        ],
        environ={"BITSTORM__SPARK": "x", "BITSTORM__FORECAST__LEVEL": "1.5"},
    )
    assert set(found) == {
        "training.lookback",
        "trainning",
        "training.epochs",
        "indicators.windows",
        "grid.frequency",
        "source.mode",
        "rubbish",
        "BITSTORM__SPARK",
        "forecast.level",
    }
    assert "look_back" in found["training.lookback"]
    assert "training" in found["trainning"]
    assert "'many'" in found["training.epochs"]
    assert "1h" in found["grid.frequency"]
    assert "simulated" in found["source.mode"]
    assert "section.key=value" in found["rubbish"]
    assert "environment" in found["forecast.level"]


@pytest.mark.parametrize(
    ("overrides", "key", "said"),
    [
        (["indicators.windows=[24, 7]"], "indicators.windows", "ascending"),
        (["indicators.windows=[7, 7]"], "indicators.windows", "repeated"),
        (["training.train_share=0.9"], "training.validation_share", "test"),
        (["training.batch_size=0"], "training.batch_size", "auto"),
        (["source.plan=demo"], "source.plan", "coingecko"),
    ],
)
def test_a_contradiction_names_both_sides(overrides, key, said):
    found = problems(overrides=overrides)
    assert list(found) == [key] and said in found[key]


@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [", "not YAML"), ("- 1", "sections"), ("training: 3", "section of keys")],
)
def test_a_file_that_is_no_overlay_is_named(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    (text,) = problems(files=[path]).values()
    assert said in text and str(path) in text


def test_a_missing_file_is_named(tmp_path):
    (text,) = problems(files=[tmp_path / "absent.yaml"]).values()
    assert "absent.yaml" in text


def test_the_section_import_is_called_that_in_every_layer(tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("import:\n  daily_switch: refuse\n")
    assert load(files=[overlay]).settings.import_.daily_switch == "refuse"
    environ = {"BITSTORM__IMPORT__DAILY_SWITCH": "keep"}
    loaded = load(files=[overlay], environ=environ)
    assert ("import.daily_switch", "keep", "environment BITSTORM__IMPORT__DAILY_SWITCH") in (
        loaded.rows()
    )
    assert load(overrides=["import.daily_switch=move"]).settings.import_.daily_switch == "move"
    with pytest.raises(SettingsError, match="did you mean daily_switch"):
        load(overrides=["import.daily_swich=move"])
