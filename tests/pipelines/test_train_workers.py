"""`train --workers 2`, from indicators to a forecast, and where Spark cannot run two at once."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.model.backend import BEST
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.reproduce import reproduce
from bitstorm.pipelines.train import train
from pipelines.priced import points_of, published, random_walk, small, wave, with_prices

pytestmark = pytest.mark.slow


def test_a_run_of_two_workers_forecasts_and_is_reproduced(spark_session, tmp_path):
    # The one that loads sooner, where it is there; `model/test_workers.py` has both.
    library = "torch" if find_spec("torch") else "tensorflow"
    options = ("training.workers=2", f"training.backend={library}")
    context = with_prices(small(tmp_path, *options), wave())
    trained = train(context)
    folder = context.workspace.checkpoints / trained.run
    files = {path.name for path in folder.iterdir()}
    assert files == {BEST[library], "history.csv", "run.json"}
    record = json.loads((folder / "run.json").read_text())
    assert record["settings"]["workers"] == 2
    assert record["threads"] == {"intra_op": 1}
    # As one worker: each return follows from the two before it.
    assert trained.best_validation_loss < 0.1
    metrics = forecast(context).metrics
    assert metrics["run"] == trained.run
    assert metrics["model"]["skill"] > 0.9
    # Once more from the record alone, to the last bit.
    steps = {step.name: step.result for step in reproduce(context, trained.run).steps}
    assert steps["network"] == "equal"


def test_more_workers_than_slots_are_refused_before_a_run(spark_session, tmp_path):
    context = published(small(tmp_path, "training.workers=3"), points_of(random_walk(1)[:200]))
    with pytest.raises(
        EnvironmentProblem,
        match=r"^training\.workers is 3, but Spark runs 2 tasks at the same time: start it with "
        r"spark\.master=local\[3\], or lower training\.workers$",
    ):
        train(context)
    assert not context.workspace.checkpoints.exists()


def test_speculation_is_refused_in_a_sentence(tmp_path):
    published(small(tmp_path), points_of(random_walk(1)[:200]))
    options = ["--workers", "2", "--set", "spark.conf.spark.speculation=true"]
    done = subprocess.run(
        [sys.executable, "-m", "bitstorm.cli", "train", *options, "--workspace", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "bitstorm: spark.speculation is true, which training.workers=2 does not allow: set it to "
        "false, or train with training.workers=1"
    )
