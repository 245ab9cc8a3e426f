"""Training in PyTorch, from prices to a forecast, and as good as what Keras comes to."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.train import train
from pipelines.priced import points_of, published, random_walk, small, wave, with_prices

pytestmark = pytest.mark.slow


def test_without_pytorch_one_sentence_says_how_to_get_it(tmp_path):
    context = published(small(tmp_path), points_of(random_walk(1)[:200]))
    # As on a machine without it, whatever this one has.
    program = "import sys; sys.modules['torch'] = None; from bitstorm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--backend", "torch", "--workspace", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "bitstorm: training.backend is torch, but PyTorch is not installed: run scripts/setup "
        "--torch or pip install 'bitstorm[torch]'\n"
    )
    assert not context.workspace.checkpoints.exists()


@pytest.fixture
def pytorch() -> None:
    pytest.importorskip(
        "torch",
        reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested",
    )


def test_a_run_of_pytorch_learns_is_recorded_and_forecasts(pytorch, spark_session, tmp_path):
    context = with_prices(small(tmp_path, "training.backend=torch"), wave())
    trained = train(context)
    folder = context.workspace.checkpoints / trained.run
    assert {path.name for path in folder.iterdir()} == {"best.npz", "history.csv", "run.json"}
    record = json.loads((folder / "run.json").read_text())
    assert record["backend"] == "torch"
    assert record["versions"]["torch"] and "keras" not in record["versions"]
    assert record["threads"]["intra_op"] >= 1
    # Each return follows from the two before it: next to nothing is left to guess.
    assert trained.best_validation_loss < 0.1
    metrics = forecast(context).metrics
    assert metrics["run"] == trained.run
    assert metrics["model"]["skill"] > 0.9

    content = bytearray((folder / "best.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "best.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"best\.npz is not the file whose hash the record has"):
        forecast(context)


@pytest.mark.faults
def test_a_stopped_run_reaches_the_weights_of_an_unbroken_one(
    pytorch, spark_session, tmp_path, monkeypatch
):
    from bitstorm.model import torch_backend

    settings = ("training.backend=torch", "training.dropout=0.2", "training.epochs=4")
    context = with_prices(small(tmp_path, *settings), random_walk(4))
    unbroken = train(context)

    steps = 0
    step = torch_backend.TorchNetwork.step

    def stopping(self, *batch):
        nonlocal steps
        steps += 1
        # In mid-epoch, after two whole ones of 26 batches.
        if steps == 2 * 26 + 5:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(torch_backend.TorchNetwork, "step", stopping)
        with pytest.raises(BrokenOff, match=r"stopped by SIGTERM.* goes on after epoch 2"):
            train(context)
    (broken,) = {path.name for path in context.workspace.checkpoints.iterdir()} - {unbroken.run}
    resumed = train(context, resume=broken)
    assert resumed.run == broken

    def kept(run):
        folder = context.workspace.checkpoints / run
        with (folder / "history.csv").open() as stream:
            losses = [(row["loss"], row["val_loss"]) for row in csv.DictReader(stream)]
        with np.load(folder / "best.npz", allow_pickle=False) as arrays:
            return losses, {name: arrays[name].tobytes() for name in arrays.files}

    assert kept(broken) == kept(unbroken.run)
    assert len(kept(broken)[0]) == 4
