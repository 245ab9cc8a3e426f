"""The search space holds the settings; what it gives are settings again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitstorm.backtest.space import Range, default_values, overlay, search_space, with_values
from bitstorm.core.config import load
from bitstorm.core.settings import Training

TRAININGS = st.builds(
    Training,
    look_back=st.integers(1, 500),
    units=st.integers(1, 500),
    dropout=st.floats(0, 0.99),
    batch_size=st.one_of(st.just("auto"), st.integers(1, 4096)),
    learning_rate=st.one_of(st.just("auto"), st.floats(1e-6, 10)),
)


def test_the_space_of_the_default_settings_is_this():
    rate = 0.001 * 8**0.5
    assert search_space(Training()) == {
        "look_back": Range(15, 120, log=True),
        "units": Range(12, 100, log=True),
        "batch_size": Range(64, 512, log=True),
        "dropout": Range(0.0, 0.5, log=False),
        "learning_rate": Range(rate / 10, rate * 10, log=True),
    }


@given(TRAININGS, st.data())
def test_each_range_holds_its_setting_and_makes_settings(training, data):
    space, first = search_space(training), default_values(training)
    assert space.keys() == first.keys()
    assert all(space[name].low <= value <= space[name].high for name, value in first.items())
    # Optuna takes no range from zero where ratios count, and none with ends of two kinds.
    assert all(one.low > 0 for one in space.values() if one.log)
    assert all(type(one.low) is type(one.high) is type(first[n]) for n, one in space.items())
    ends = {name: data.draw(st.sampled_from([one.low, one.high])) for name, one in space.items()}
    changed = with_values(training, ends)
    assert {name: getattr(changed, name) for name in ends} == ends
    left = training.model_dump().keys() - ends.keys()
    assert all(getattr(changed, name) == getattr(training, name) for name in left)


@given(TRAININGS)
def test_the_overlay_gives_the_values_back(tmp_path_factory, training):
    values = default_values(training)
    path = tmp_path_factory.mktemp("overlay") / "best.yaml"
    path.write_text(overlay(values, "Trial 3 of a study."))
    assert path.read_text().startswith("# Trial 3 of a study.\ntraining:\n  look_back: ")
    assert load(files=[path]).settings.training == Training.model_validate(values)
