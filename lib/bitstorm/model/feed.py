"""Stored blocks of the series → windows in batches for the network, through petastorm's converter.

A `Feed` is the windows whose target lies in its part of the series; each pass serves each of them
exactly once.

A series of at most `KEPT_BLOCKS` blocks (524,288 points) is read once for all shuffled passes and
kept in memory; (seed, epoch) decides a uniformly random order of its windows. Of a longer one each
pass reads the row groups, and the blocks of each, in an order that (seed, epoch) decides, and puts
the windows of `SHUFFLED_BLOCKS` blocks at a time into a random order; a file is a sample of the
whole series.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.core.errors import ModelError
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.model import windowing
from bitstorm.model.dataset import Stored
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Batch, Frame, Framed

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter

# Blocks whose windows are framed at once: in order, and shuffled.
GROUPED_BLOCKS = 16
SHUFFLED_BLOCKS = 128
# Up to so many are read once for all shuffled passes; one group then holds them all.
KEPT_BLOCKS = SHUFFLED_BLOCKS

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Feed:
    """The windows whose target's grid index lies in [`first`, `last`], `windows` of them, in those
    of the stored files that `files` numbers."""

    stored: Stored
    scaler: Scaler
    first: int | None
    last: int | None
    windows: int
    files: tuple[int, ...]
    _kept: list[Framed] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def frame(self) -> Frame:
        return self.stored.frame

    def __len__(self) -> int:
        return self.windows

    def dataset(
        self, *, batch_size: int, seed: int | None = None, epoch: Callable[[], int] = lambda: 0
    ) -> Any:
        """A `tf.data.Dataset` of (window float32 (n, look_back, features), target float32 (n,)).

        With a seed every iteration is a pass of its own, shuffled by the seed and the number that
        `epoch` gives then. Without one it is the same rows in the same order every time, read
        once: the blocks are kept in memory, not the windows.
        """
        import tensorflow as tf

        look_back, features = self.frame.look_back, len(self.frame.features)

        def one_pass() -> Iterator[tuple[np.ndarray, ...]]:
            for group in self.groups(self._tensorflow_rows, seed=seed, epoch=epoch()):
                yield group.values, group.starts, group.target

        # There is no Python in them to convert, and looking for it takes longer than all the rest.
        unconverted = tf.autograph.experimental.do_not_convert

        @unconverted
        def framed(values: Any, starts: Any, targets: Any) -> Any:
            @unconverted
            def gathered(some: Any, target: Any) -> tuple[Any, Any]:
                window = tf.gather(values, some[:, None] + tf.range(look_back))
                return tf.ensure_shape(window, (None, look_back, features)), target

            return (
                tf.data.Dataset.from_tensor_slices((starts, targets))
                .batch(batch_size)
                .map(gathered)
            )

        groups = tf.data.Dataset.from_generator(
            one_pass,
            output_signature=(
                tf.TensorSpec((None, features), tf.float32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        if seed is None:
            groups = groups.cache()
        batches = -(-self.windows // batch_size)
        dataset = groups.flat_map(framed).rebatch(batch_size).prefetch(2)
        # Keras warns of a data set whose length it does not know.
        return dataset.apply(tf.data.experimental.assert_cardinality(batches))

    def torch_batches(
        self, *, batch_size: int, seed: int | None = None, epoch: int = 0
    ) -> Generator[Batch, None, None]:
        """One pass in the same order through petastorm's loader for PyTorch; the arrays are its
        tensors' memory."""
        groups = self.groups(self._torch_rows, seed=seed, epoch=epoch)
        with closing(groups):
            yield from windowing.batches(
                groups, look_back=self.frame.look_back, batch_size=batch_size
            )

    def groups(
        self, rows: Callable[..., Any], *, seed: int | None, epoch: int
    ) -> Generator[Framed, None, None]:
        """The windows of one pass, some blocks at a time, in the order that they are served in.

        Raises ModelError where a file is gone or damaged, and where other than the feed's number
        of windows came.
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
    ) -> Generator[Framed, None, None]:
        """The windows of so many blocks at a time, from the files."""
        if self.windows == 0:
            return
        served = 0
        with rows(self._converter(), **_reading(blocks, shuffle)) as read:
            for columns in read:
                which = windowing.whole(self.frame, columns, first=self.first, last=self.last)
                group = windowing.framed(self.frame, columns, self.scaler, which)
                served += len(group)
                if served > self.windows:
                    break
                if len(group):
                    yield group
        if served != self.windows:
            raise ModelError(
                f"a pass over the windows served {served}, expected {self.windows}: their files "
                f"under {self.stored.folder} have changed meanwhile; run the command again"
            )

    def _converter(self) -> SparkDatasetConverter:
        """Of the files that a pass has to read. Raises ModelError where one is gone."""
        from petastorm.spark import SparkDatasetConverter

        converter = self.stored.converter
        urls = [converter.file_urls[n] for n in self.files]
        # petastorm waits half a minute for a file that is not there.
        gone = [url for url in urls if not Path(url.removeprefix("file://")).exists()]
        if gone:
            raise ModelError(
                f"{len(gone)} of {len(urls)} files of the windows' blocks under "
                f"{self.stored.folder} are gone: run the command again, and leave the cache alone "
                "while it runs"
            )
        return SparkDatasetConverter(converter.cache_dir_url, urls, len(converter))

    @contextmanager
    def _tensorflow_rows(
        self, converter: SparkDatasetConverter, **reading: Any
    ) -> Iterator[Iterator[Columns]]:
        import tensorflow as tf

        try:
            with converter.make_tf_dataset(**reading) as dataset:
                yield (rows._asdict() for rows in dataset.as_numpy_iterator())
        except (tf.errors.OpError, OSError) as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _torch_rows(
        self, converter: SparkDatasetConverter, **reading: Any
    ) -> Iterator[Iterator[Columns]]:
        with without_third_party_warnings():
            from petastorm.pytorch import BatchedDataLoader

        try:
            # Its other loader takes rows apart one by one.
            with converter.make_torch_dataloader(
                data_loader_fn=BatchedDataLoader, **reading
            ) as loader:
                yield ({name: column.numpy() for name, column in rows.items()} for rows in loader)
        except (OSError, ValueError, RuntimeError) as error:  # pyarrow's and petastorm's, too
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> ModelError:
        return ModelError(
            f"the windows' blocks under {self.stored.folder} cannot be read ({reason_of(error)}): "
            "run the command again"
        )


def make_feed(
    stored: Stored, scaler: Scaler, *, after_ms: int | None = None, until_ms: int | None = None
) -> Feed:
    """The feed of the windows whose target's time lies in (`after_ms`, `until_ms`], in ms UTC,
    which are counted."""
    frame = stored.frame
    first = None if after_ms is None else after_ms // frame.step_ms + 1
    last = None if until_ms is None else until_ms // frame.step_ms
    counts = [
        int(windowing.whole(frame, columns, first=first, last=last).sum())
        for columns in stored.columns()
    ]
    files = tuple(number for number, count in enumerate(counts) if count)
    return Feed(stored, scaler, first, last, sum(counts), files)


def _shuffled(groups: Iterable[Framed], seed: int, epoch: int) -> Iterator[Framed]:
    """Each group with its windows in a random order that seed, epoch and its place decide."""
    for place, group in enumerate(groups):
        chance = np.random.default_rng([seed, epoch, place])
        yield group.taken(chance.permutation(len(group)))


def _reading(blocks: int, shuffle: tuple[int, int] | None) -> dict[str, Any]:
    """How the converter's `make_tf_dataset` and `make_torch_dataloader` read a pass."""
    return {
        "batch_size": blocks,
        "num_epochs": 1,
        "workers_count": 1,
        # It reads in the calling thread, so it cannot hang. petastorm's thread pool can, and can
        # take "not begun" for "done" and lose a pass.
        "reader_pool_type": "dummy",
        "shuffle_row_groups": shuffle is not None,
        "shuffle_rows": shuffle is not None,
        # Zero would mean any order to petastorm.
        "seed": None
        if shuffle is None
        else 1 + int(np.random.SeedSequence(list(shuffle)).generate_state(1)[0] >> 1),
    }


def reason_of(error: BaseException) -> str:
    """One line. What fails in a feed comes out of TensorFlow as a line of a long text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in reversed(lines) if "Error: " in line), None)
    return named.split("Error: ")[-1].strip() if named else (lines or [type(error).__name__])[0]
