"""A `.keras` file gives weights and nothing else; whatever else is in it is refused."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest

from bitstorm.core.errors import ModelError

pytestmark = pytest.mark.slow

SHAPE: dict[str, Any] = {
    "look_back": 3,
    "features": 2,
    "units": 4,
    "dropout": 0.1,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network of ours and its file."""
    from bitstorm.model import network

    built = network.seeded(**SHAPE, seed=1)
    folder = tmp_path_factory.mktemp("saved")
    network.save(built, folder)
    assert [path.name for path in folder.iterdir()] == ["best.keras"]
    return built, (folder / "best.keras").read_bytes()


def fresh():
    from bitstorm.model import network

    return network.build(**SHAPE)


def rewritten(content: bytes, **changes) -> bytes:
    """The ZIP with members changed: bytes, None to leave one out, or a function of the old."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = changes.pop(name, old.read(name))
            if change is not None:
                new.writestr(name, change(old.read(name)) if callable(change) else change)
        for name, added in changes.items():
            new.writestr(name, added)
    return target.getvalue()


def test_the_weights_come_back_into_a_network_of_our_own(saved):
    from bitstorm.model import network

    trained, content = saved
    other = fresh()
    window = np.random.default_rng(1).normal(size=(5, 3, 2)).astype(np.float32)
    assert not np.array_equal(np.asarray(other(window)), np.asarray(trained(window)))
    network.load_weights(other, content)
    assert np.array_equal(np.asarray(other(window)), np.asarray(trained(window)))


def test_a_file_with_a_lambda_layer_is_refused_and_not_run(saved, tmp_path):
    import keras

    from bitstorm.model import network

    ran: Any = []
    evil = keras.Sequential(
        [*fresh().layers, keras.layers.Lambda(lambda x: ran.append(1) or x, output_shape=(1,))]
    )
    evil.build((None, 3, 2))
    evil.save(tmp_path / "evil.keras")
    ran.clear()
    with pytest.raises(ModelError, match=r"it describes .*Lambda, expected .*Dense$"):
        network.load_weights(fresh(), (tmp_path / "evil.keras").read_bytes())
    assert ran == []


def edited(change):
    def edit(text: bytes) -> bytes:
        config = json.loads(text)
        change(config)
        return json.dumps(config).encode()

    return edit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda c: c["config"]["layers"][1]["config"].update(units=5),
            "its layer lstm has another units",
        ),
        (
            lambda c: c["config"]["layers"][1]["config"].update(activation="relu"),
            "its layer lstm has another activation",
        ),
        (
            lambda c: c["config"]["layers"][5].update(module="os"),
            "its layer dense has another module",
        ),
        (
            lambda c: c["config"]["layers"][5].update(registered_name="evil>Dense"),
            "its layer dense has another registered_name",
        ),
        (lambda c: c["config"]["layers"].pop(), "it describes .*Dropout, expected .*Dense"),
        (lambda c: c.update(class_name="Functional"), "describes a .*Functional"),
    ],
)
def test_an_edited_description_is_refused(saved, change, reason):
    from bitstorm.model import network

    content = rewritten(saved[1], **{"config.json": edited(change)})
    with pytest.raises(ModelError, match=reason):
        network.load_weights(fresh(), content)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"../evil.py": b"x"}, r"it holds '\.\./evil\.py', expected just config\.json, metadata"),
        ({"/etc/evil": b"x"}, "it holds '/etc/evil'"),
        ({"assets/vocabulary.txt": b"x"}, "it holds 'assets/vocabulary.txt'"),
        ({"metadata.json": None}, "expected just config.json, metadata.json, model.weights.h5"),
        ({"config.json": b"not json"}, "Expecting value"),
        ({"model.weights.h5": b"not a weight"}, "."),
    ],
)
def test_other_members_than_the_three_are_refused(saved, changes, reason):
    from bitstorm.model import network

    other = fresh()
    before = [np.array(weight) for weight in other.get_weights()]
    with pytest.raises(ModelError, match=reason):
        network.load_weights(other, rewritten(saved[1], **changes))
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


def test_a_member_that_comes_twice_is_refused(saved):
    from bitstorm.model import network

    target = io.BytesIO(saved[1])
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelError, match="expected just"):
        network.load_weights(fresh(), target.getvalue())


def test_the_weights_of_another_network_are_refused(saved):
    from bitstorm.model import network

    smaller = network.build(**{**SHAPE, "units": 3})
    with pytest.raises(ModelError, match="its layer lstm has another units"):
        network.load_weights(smaller, saved[1])
