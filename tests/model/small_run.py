"""A small training; as a program it prints the losses of seed 7 over the folder it is given."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from bitstorm import quiet


def feed_of(path, rows):
    from petastorm.spark import SparkDatasetConverter

    from bitstorm.model.windows import Feed

    return Feed(SparkDatasetConverter(f"file://{path}", [f"file://{path}"], rows), 4, 1)


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
