"""Blocks on disk → windows in batches for the network, through petastorm's converter.

A `Feed` serves the windows whose targets lie in its part of the series, each once a pass.

(seed, epoch) decides the order of a shuffled pass. A series of at most `KEPT_BLOCKS` blocks
(524,288 points) is read once, kept in memory, and served in a uniformly random order. For a longer
series each pass reads the row groups, and the blocks of each, in random order, and shuffles the
windows of `SHUFFLED_BLOCKS` blocks together; each file is a sample of the whole series.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.core.errors import ModelError
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.model import windowing
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Batch, Columns, Windows, WindowSpec

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter

# The blocks of a group of windows: in order, and shuffled.
GROUPED_BLOCKS = 16
SHUFFLED_BLOCKS = 128
# A series of at most so many blocks is one group, read once for all shuffled passes.
KEPT_BLOCKS = SHUFFLED_BLOCKS


@dataclass(frozen=True)
class Feed:
    """The windows whose target's grid index lies in [`first`, `last`]. `windows` is their number;
    `files` are the indexes of the stored files that hold them."""

    stored: StoredBlocks
    scaler: Scaler
    first: int | None
    last: int | None
    windows: int
    files: tuple[int, ...]
    _kept: list[Windows] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def spec(self) -> WindowSpec:
        return self.stored.spec

    def __len__(self) -> int:
        return self.windows

    def dataset(
        self, *, batch_size: int, seed: int | None = None, epoch: Callable[[], int] = lambda: 0
    ) -> Any:
        """A `tf.data.Dataset` of (window float32 (n, look_back, features), target float32 (n,)).

        With a seed each iteration is a new pass, shuffled by the seed and by `epoch()`. Without a
        seed all iterations have the same order; the blocks are read once and kept in memory.
        """
        import tensorflow as tf

        look_back, features = self.spec.look_back, len(self.spec.features)

        def one_pass() -> Iterator[tuple[np.ndarray, ...]]:
            for group in self.groups(self._tensorflow_rows, seed=seed, epoch=epoch()):
                yield group.values, group.starts, group.target

        # The functions hold no Python to convert, and the search for it takes longer than the rest.
        unconverted = tf.autograph.experimental.do_not_convert

        @unconverted
        def to_batches(values: Any, starts: Any, targets: Any) -> Any:
            @unconverted
            def to_batch(start: Any, target: Any) -> tuple[Any, Any]:
                window = tf.gather(values, start[:, None] + tf.range(look_back))
                return tf.ensure_shape(window, (None, look_back, features)), target

            windows = tf.data.Dataset.from_tensor_slices((starts, targets))
            return windows.batch(batch_size).map(to_batch)

        types = (
            tf.TensorSpec((None, features), tf.float32),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.float32),
        )
        groups = tf.data.Dataset.from_generator(one_pass, output_signature=types)
        if seed is None:
            groups = groups.cache()
        batches = -(-self.windows // batch_size)
        dataset = groups.flat_map(to_batches).rebatch(batch_size).prefetch(2)
        # Keras warns of a data set whose length it does not know.
        return dataset.apply(tf.data.experimental.assert_cardinality(batches))

    def batches(
        self, library: str, *, batch_size: int, seed: int | None = None, epoch: int = 0
    ) -> Generator[Batch, None, None]:
        """One pass in the same order, as arrays, through petastorm's loader for `library`:
        "tensorflow" or "torch"."""
        look_back = self.spec.look_back
        rows = self._torch_rows if library == "torch" else self._tensorflow_rows
        with closing(self.groups(rows, seed=seed, epoch=epoch)) as groups:
            yield from windowing.batches(groups, look_back=look_back, batch_size=batch_size)

    def groups(
        self, rows: Callable[..., Any], *, seed: int | None, epoch: int
    ) -> Generator[Windows, None, None]:
        """The windows of one pass, in groups, in the order of serving.

        Raises ModelError where a file is missing or damaged, and where the number of windows is not
        the feed's.
        """
        if seed is None:
            yield from self._read(rows, GROUPED_BLOCKS)
        elif len(self.stored.converter) > KEPT_BLOCKS:
            with closing(self._read(rows, SHUFFLED_BLOCKS, shuffle=(seed, epoch))) as groups:
                yield from _shuffled(groups, seed, epoch)
        else:
            if not self._kept:
                self._kept.extend([*self._read(rows, SHUFFLED_BLOCKS)])
            yield from _shuffled(self._kept, seed, epoch)

    def _read(
        self, rows: Callable[..., Any], blocks: int, *, shuffle: tuple[int, int] | None = None
    ) -> Generator[Windows, None, None]:
        """The windows from the files, in groups of so many blocks."""
        if self.windows == 0:
            return
        served = 0
        with rows(self._converter(), **_reader_options(blocks, shuffle)) as read:
            spec, part = self.spec, {"first": self.first, "last": self.last}
            for columns in read:
                which = windowing.complete_windows(spec, columns, **part)
                group = windowing.to_windows(spec, columns, self.scaler, which)
                served += len(group)
                if served > self.windows:
                    break
                if len(group):
                    yield group
        if served != self.windows:
            raise ModelError(
                f"a pass over the windows served {served}, expected {self.windows}: the files "
                f"under {self.stored.folder} have changed; run the command again"
            )

    def _converter(self) -> SparkDatasetConverter:
        """The converter of the feed's files. Raises ModelError where one is missing."""
        from petastorm.spark import SparkDatasetConverter

        converter = self.stored.converter
        urls = [converter.file_urls[n] for n in self.files]
        # petastorm waits half a minute for a missing file.
        gone = [url for url in urls if not Path(url.removeprefix("file://")).exists()]
        if gone:
            raise ModelError(
                f"{len(gone)} of {len(urls)} files of blocks under {self.stored.folder} are "
                "missing: run the command again, and delete nothing from the cache while it runs"
            )
        return SparkDatasetConverter(converter.cache_dir_url, urls, len(converter))

    @contextmanager
    def _tensorflow_rows(
        self, converter: SparkDatasetConverter, **options: Any
    ) -> Iterator[Iterator[Columns]]:
        import tensorflow as tf

        try:
            with converter.make_tf_dataset(**options) as dataset:
                yield (rows._asdict() for rows in dataset.as_numpy_iterator())
        except (tf.errors.OpError, OSError) as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _torch_rows(
        self, converter: SparkDatasetConverter, **options: Any
    ) -> Iterator[Iterator[Columns]]:
        with without_third_party_warnings():
            from petastorm.pytorch import BatchedDataLoader

        # petastorm's default loader handles each row by itself.
        open_loader = converter.make_torch_dataloader
        try:
            with open_loader(data_loader_fn=BatchedDataLoader, **options) as loader:
                yield ({name: column.numpy() for name, column in rows.items()} for rows in loader)
        except (OSError, ValueError, RuntimeError) as error:  # pyarrow and petastorm raise these
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> ModelError:
        return ModelError(
            f"the blocks under {self.stored.folder} cannot be read ({reason_of(error)}): "
            "run the command again"
        )


def make_feed(
    stored: StoredBlocks,
    scaler: Scaler,
    *,
    after_ms: int | None = None,
    until_ms: int | None = None,
) -> Feed:
    """The feed of the windows whose targets lie in (`after_ms`, `until_ms`], ms UTC. Reads all
    blocks to count the windows."""
    spec = stored.spec
    first = None if after_ms is None else after_ms // spec.step_ms + 1
    last = None if until_ms is None else until_ms // spec.step_ms
    counts = [
        int(windowing.complete_windows(spec, columns, first=first, last=last).sum())
        for columns in stored.columns()
    ]
    files = tuple(number for number, count in enumerate(counts) if count)
    return Feed(stored, scaler, first, last, sum(counts), files)


def _shuffled(groups: Iterable[Windows], seed: int, epoch: int) -> Iterator[Windows]:
    """Each group with its windows in a random order, which follows from seed, epoch and place."""
    for place, group in enumerate(groups):
        chance = np.random.default_rng([seed, epoch, place])
        yield group.select(chance.permutation(len(group)))


def _reader_options(blocks: int, shuffle: tuple[int, int] | None) -> dict[str, Any]:
    """The options of the converter's `make_tf_dataset` and `make_torch_dataloader` for a pass."""
    seed = shuffle and 1 + int(np.random.SeedSequence(list(shuffle)).generate_state(1)[0] >> 1)
    return {
        "batch_size": blocks,
        "num_epochs": 1,
        "workers_count": 1,
        # Read in the calling thread: petastorm's thread pool can hang, and can lose a pass when it
        # mistakes "not begun" for "done".
        "reader_pool_type": "dummy",
        "shuffle_row_groups": shuffle is not None,
        "shuffle_rows": shuffle is not None,
        # Not zero, which petastorm takes for "any order".
        "seed": seed,
    }


def reason_of(error: BaseException) -> str:
    """The reason in one line: a feed's error is one line in a long text of TensorFlow's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in reversed(lines) if "Error: " in line), None)
    return named.split("Error: ")[-1].strip() if named else (lines or [type(error).__name__])[0]
