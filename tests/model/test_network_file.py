"""A `.keras` file gives weights and nothing else."""

from __future__ import annotations

import io
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
    """The ZIP with members changed; None leaves one out."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = changes.get(name, old.read(name))
            if change is not None:
                new.writestr(name, change)
    return target.getvalue()


def test_the_weights_come_back_into_a_network_of_our_own(saved):
    from bitstorm.model import network

    trained, content = saved
    other = fresh()
    window = np.random.default_rng(1).normal(size=(5, 3, 2)).astype(np.float32)
    assert not np.array_equal(np.asarray(other(window)), np.asarray(trained(window)))
    network.load_weights(other, content)
    assert np.array_equal(np.asarray(other(window)), np.asarray(trained(window)))


def test_a_described_lambda_layer_is_never_built(saved, tmp_path):
    import keras

    from bitstorm.model import network

    ran: Any = []
    evil = keras.Sequential(
        [*fresh().layers, keras.layers.Lambda(lambda x: ran.append(1) or x, output_shape=(1,))]
    )
    evil.build((None, 3, 2))
    evil.save(tmp_path / "evil.keras")
    ran.clear()
    network.load_weights(fresh(), (tmp_path / "evil.keras").read_bytes())
    assert ran == []


@pytest.mark.parametrize("changes", [{"model.weights.h5": None}, {"model.weights.h5": b"no HDF5"}])
def test_a_file_without_readable_weights_changes_nothing(saved, changes):
    from bitstorm.model import network

    other = fresh()
    before = [np.array(weight) for weight in other.get_weights()]
    with pytest.raises(ModelError, match=r"."):
        network.load_weights(other, rewritten(saved[1], **changes))
    with pytest.raises(ModelError, match="not a zip"):
        network.load_weights(other, b"no ZIP")
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


def test_the_weights_of_another_network_are_refused(saved):
    from bitstorm.model import network

    smaller = network.build(**{**SHAPE, "units": 3})
    with pytest.raises(ModelError, match="lstm"):
        network.load_weights(smaller, saved[1])
