"""A small training; as a program it prints the losses of seed 7 over the folder it is given."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from bitstorm import quiet


def as_blocks(windows, targets):
    """Windows (n, 4) of a feature `x` and any targets as columns of blocks of one window each."""
    count = len(windows)
    price = np.ones((count, 6))
    price[:, -1] = np.exp(targets)
    x = np.zeros((count, 6))
    x[:, 1:-1] = windows
    return {
        "block": pa.array(range(count), pa.int64()),
        "price": pa.array(price.tolist(), pa.list_(pa.float32())),
        "x": pa.array(x.tolist(), pa.list_(pa.float64())),
    }


def feed_of(path, rows):
    """The feed of one file of such blocks, of which it believes that there are `rows` windows."""
    from petastorm.spark import SparkDatasetConverter

    from bitstorm.model.framing import Frame
    from bitstorm.model.scaling import Scale, Scaler
    from bitstorm.model.windows import Stored, make_feed

    stored = Stored(
        Frame(4, 1, ("x",), "log_return", 3_600_000, size=1),
        SparkDatasetConverter(f"file://{path}", [f"file://{path}"], rows),
        path.parent,
        blocks=np.arange(rows),
        counts=np.ones(rows, np.int64),
        files=np.zeros(rows, np.int64),
        reused=False,
    )
    return make_feed(stored, Scaler({"x": Scale(0.0, 1.0)}, Scale(0.0, 1.0)))


def trained(folder, *, seed, epochs=4, patience=9, learning_rate=0.02, rows=150):
    """The outcome, the losses (loss, val_loss) by epoch, the folder and what was told."""
    import keras

    from bitstorm.model import network, training

    keras.utils.set_random_seed(seed)
    model = network.build(
        look_back=4, features=1, units=4, dropout=0.2, learning_rate=learning_rate
    )
    out = folder / f"run-{seed}-{len(list(folder.iterdir()))}"
    out.mkdir()
    told = []
    fitted = training.fit(
        model,
        train=feed_of(folder / "train.parquet", rows),
        validation=feed_of(folder / "validation.parquet", 37),
        epochs=epochs,
        patience=patience,
        batch_size=16,
        seed=seed,
        folder=out,
        progress=told.append,
    )
    with (out / "history.csv").open() as stream:
        losses = [(float(r["loss"]), float(r["val_loss"])) for r in csv.DictReader(stream)]
    return fitted, losses, out, told


if __name__ == "__main__":
    quiet.install_filters()
    quiet.hush_loggers()
    print(json.dumps(trained(Path(sys.argv[1]), seed=7)[1]))
