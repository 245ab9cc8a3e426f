"""Stored blocks of the series → windows in batches for the network.

A `Feed` is the windows whose target lies in its part of the series, framed while they are served,
each exactly once a pass.

A shuffled pass reads the row groups in an order that (seed, number) decides, and the blocks of
each; a file is a sample of the whole series. Of `SHUFFLED_BLOCKS` blocks at a time the windows are
put into a random order: a uniform one as long as the series has no more points than these blocks
(524,288), beyond that one of buffers of so many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.errors import ModelError
from bitstorm.model import framing
from bitstorm.model.dataset import Stored
from bitstorm.model.framing import Batch, Frame, Framed
from bitstorm.model.scaling import Scaler

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter

# Blocks whose windows are framed at once: in order, and shuffled.
GROUPED_BLOCKS = 16
SHUFFLED_BLOCKS = 128
# Windows are gathered by so many bytes: less costs calls, more costs memory.
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Feed:
    """The windows whose targets lie in one part of the series, in batches of fixed shape.

    Every pass opens a reader of its own and closes it: a reader is good for one pass. `offsets`
    int64 (n,) are the windows of the part before each of the stored blocks, in their order.
    """

    stored: Stored
    scaler: Scaler
    first: int | None
    last: int | None
    offsets: np.ndarray
    windows: int
    shard_of: tuple[int, int] | None = None

    @property
    def converter(self) -> SparkDatasetConverter:
        return self.stored.converter

    @property
    def frame(self) -> Frame:
        return self.stored.frame

    @property
    def look_back(self) -> int:
        return self.frame.look_back

    @property
    def features(self) -> int:
        return len(self.frame.features)

    def __len__(self) -> int:
        """Windows of the part; of a shard, those of all shards."""
        return self.windows

    def shard(self, number: int, count: int) -> Feed:
        """The feed of worker `number` (from 0) of `count`.

        In a pass every worker has as many batches as the others, all of them full, and no window
        goes to two. What is left over, fewer windows than `count` batches, is dropped: others in
        every pass. Raises ModelError where there are fewer row groups than workers.
        """
        groups = len(self._files())
        if not 0 <= number < count:
            raise ValueError(f"there is no shard {number} of {count}")
        if groups < count:
            raise ModelError(
                f"found {groups} row groups with windows, expected at least one for each of the "
                f"{count} shards: train with {groups} workers or fewer, or on more data"
            )
        return replace(self, shard_of=(number, count))

    def served(self, *, batch_size: int) -> int:
        """Windows of one pass: all, or a shard's whole batches. Raises ModelError where a shard
        would have none."""
        if self.shard_of is None:
            return self.windows
        count = self.shard_of[1]
        steps = self.windows // (count * batch_size)
        if steps == 0:
            raise ModelError(
                f"found {self.windows} windows, expected at least {count * batch_size} for a batch "
                f"of {batch_size} on each of {count} workers: lower training.batch_size"
            )
        return steps * batch_size

    def dropped(self, *, batch_size: int) -> int:
        """Windows that no shard serves in a pass."""
        shards = 1 if self.shard_of is None else self.shard_of[1]
        return self.windows - shards * self.served(batch_size=batch_size)

    @contextmanager
    def epoch(
        self, *, batch_size: int, seed: int | None = None, number: int = 0
    ) -> Iterator[Iterator[tuple[Any, Any]]]:
        """One pass: (window float32 (n, look_back, features), target float32 (n,)) as numpy arrays;
        n is `batch_size` but for the last batch. The reader is closed with the block.

        With a seed in an order that (seed, number) decides, without one always in the same. Raises
        ModelError at the first failure, and where other than the feed's number of windows came.
        """
        groups = self._framed(seed=seed, number=number, batch_size=batch_size)
        with closing(groups):
            yield (
                (batch.window, batch.target)
                for batch in framing.batches(
                    groups, look_back=self.look_back, batch_size=batch_size
                )
            )

    def dataset(
        self, *, batch_size: int, shuffle_seed: int | None = None, first_epoch: int = 0
    ) -> Any:
        """A `tf.data.Dataset` of (window, target) that Keras can go through once an epoch.

        With a seed each iteration is the next epoch, `first_epoch` the first, shuffled as `epoch`
        does. Without one it is the same rows in the same order every time, read once: the blocks
        are kept in memory, not the windows.
        """
        numbers = itertools.count(first_epoch)

        def one_pass() -> Iterator[tuple[np.ndarray, ...]]:
            number = next(numbers) if shuffle_seed is not None else 0
            for group in self._framed(seed=shuffle_seed, number=number, batch_size=batch_size):
                yield group.values, group.starts, group.target

        return self._batched(one_pass, batch_size=batch_size, keep=shuffle_seed is None)

    def batches(self, *, batch_size: int) -> Iterator[Batch]:
        """One pass in the order of the files, for forecasts.

        The caller hushes third parties' warnings, as with all passes: filters are the whole
        process's, and a pass may run in a thread of TensorFlow's.
        """
        groups = self._framed(seed=None, number=0, batch_size=batch_size)
        with closing(groups):
            yield from framing.batches(groups, look_back=self.look_back, batch_size=batch_size)

    def newest(self, timestamp: int) -> Framed | None:
        """The window that ends at the point of this label (ms UTC), whatever comes after it; None
        where it is not whole."""
        index = timestamp // self.frame.step_ms
        columns = self.stored.read(index // self.frame.size)
        return framing.newest(self.frame, columns, self.scaler, index=index)

    def _framed(
        self, *, seed: int | None, number: int, batch_size: int
    ) -> Generator[Framed, None, None]:
        """One pass through a reader of its own, which is closed with it."""
        import tensorflow as tf

        if self.served(batch_size=batch_size) == 0:
            return
        served = 0
        converter, settings = self.reading(seed=seed, number=number, batch_size=batch_size)
        try:
            with converter.make_tf_dataset(**settings) as dataset:
                for place, rows in enumerate(dataset.as_numpy_iterator()):
                    group = self.framed(rows._asdict(), number=number, batch_size=batch_size)
                    group = self.ordered(group, seed=seed, number=number, place=place)
                    served += len(group)
                    if len(group):
                        yield group
        except (tf.errors.OpError, OSError) as error:
            raise _unreadable(self.stored.folder, error) from error
        self.check(served, batch_size=batch_size)

    def reading(
        self, *, seed: int | None = None, number: int = 0, batch_size: int
    ) -> tuple[SparkDatasetConverter, dict[str, Any]]:
        """For a pass in any framework: the converter of the files that it has to read, and what its
        `make_tf_dataset` or `make_torch_dataloader` is to be given. Their batches are rows, which
        `framed` turns into windows, `ordered` shuffles, and `check` counts at the end.

        Raises ModelError where a file is gone.
        """
        from petastorm.spark import SparkDatasetConverter

        files = self._files(number=number, batch_size=batch_size)
        urls = [self.converter.file_urls[n] for n in files]
        _check_files(urls, self.stored.folder)
        rows = int(np.isin(self.stored.files, files).sum())
        shuffled = seed is not None
        settings = {
            "batch_size": SHUFFLED_BLOCKS if shuffled else GROUPED_BLOCKS,
            "num_epochs": 1,
            "workers_count": 1,
            # petastorm's thread pool can take "not begun" for "done" and lose a pass.
            "reader_pool_type": "dummy",
            "shuffle_row_groups": shuffled,
            "shuffle_rows": shuffled,
            "seed": None if seed is None else _reader_seed(seed, number),
        }
        return SparkDatasetConverter(self.converter.cache_dir_url, urls, rows), settings

    def ordered(self, group: Framed, *, seed: int | None, number: int, place: int) -> Framed:
        """The windows of the `place`-th group (from 0) of a pass in the order that they are served
        in."""
        if seed is None:
            return group
        chance = np.random.default_rng([seed, number, place])
        return group.taken(chance.permutation(len(group)))

    def framed(
        self, columns: Mapping[str, np.ndarray], *, number: int = 0, batch_size: int = 1
    ) -> Framed:
        """The feed's windows of some rows of the converter's data set, in their order.

        `columns` is what petastorm gives for the rows, as numpy; `number` and `batch_size` tell
        which windows are a shard's.
        """
        found = framing.whole(self.frame, columns, first=self.first, last=self.last)
        if self.shard_of is not None:
            begin, size = self._share(number, batch_size)
            places = {int(block): place for place, block in enumerate(self.stored.blocks)}
            rows = [places[int(block)] for block in columns["block"]]
            # The how-manieth of the part's windows each one is.
            ranks = self.offsets[rows][:, None] + np.cumsum(found, axis=1) - 1
            found &= (ranks - begin) % self.windows < size
        return framing.framed(self.frame, columns, self.scaler, found)

    def _share(self, number: int, batch_size: int) -> tuple[int, int]:
        """The first of the part's windows that is this shard's in a pass, and how many are: they
        go on from the last window to the first. What is left over moves on with every pass."""
        assert self.shard_of is not None
        size = self.served(batch_size=batch_size)
        left_over = self.dropped(batch_size=batch_size)
        return (number * left_over + self.shard_of[0] * size) % self.windows, size

    def _files(self, *, number: int = 0, batch_size: int = 1) -> list[int]:
        """The files that a pass has to read: those with a window of the part, or of the shard."""
        counts = np.diff(self.offsets, append=self.windows)
        wanted = counts > 0
        if self.shard_of is not None:
            begin, size = self._share(number, batch_size)
            # A block's windows are its first and those up to its last, counted from the share's.
            first = (self.offsets - begin) % self.windows
            wanted &= (first < size) | (first + counts > self.windows)
        return sorted({int(n) for n in self.stored.files[wanted]})

    def _batched(
        self,
        groups: Callable[[], Iterator[tuple[np.ndarray, ...]]],
        *,
        batch_size: int,
        keep: bool,
    ) -> Any:
        """Groups of blocks → batches of windows, gathered by TensorFlow in pieces."""
        import tensorflow as tf

        look_back, features = self.look_back, self.features
        piece = max(1, _PIECE_BYTES // (4 * look_back * features))
        # A few points at a time: fewer places to look up.
        step = max(n for n in range(1, max(1, 4 // features) + 1) if look_back % n == 0)
        places = np.arange(0, look_back, step, dtype=np.int32)

        # There is no Python in them to convert, and looking for it takes longer than all the rest.
        unconverted = tf.autograph.experimental.do_not_convert

        @unconverted
        def pieces(values: Any, starts: Any, targets: Any) -> Any:
            steps = tf.shape(values)[0] - step + 1
            runs = tf.stack([values[n : n + steps] for n in range(step)], axis=1)

            @unconverted
            def windows(start: Any) -> tuple[Any, Any]:
                some = starts[start : start + piece]
                window = tf.gather(runs, some[:, None] + places)
                return (
                    tf.reshape(window, (-1, look_back, features)),
                    targets[start : start + piece],
                )

            begins = tf.data.Dataset.range(0, tf.shape(starts, tf.int64)[0], piece)
            return begins.map(windows, num_parallel_calls=2, deterministic=True)

        dataset = tf.data.Dataset.from_generator(
            groups,
            output_signature=(
                tf.TensorSpec((None, features), tf.float32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        dataset = dataset.cache() if keep else dataset.prefetch(1)
        return dataset.flat_map(pieces).rebatch(batch_size).prefetch(4)

    def check(self, served: int, *, batch_size: int) -> None:
        """Raise ModelError where a whole pass served another number of windows than it should."""
        expected = self.served(batch_size=batch_size)
        if served != expected:
            raise ModelError(
                f"a pass over the windows served {served}, expected {expected}: their files under "
                f"{self.stored.folder} have changed meanwhile; run the command again"
            )


def make_feed(
    blocks: Stored, scaler: Scaler, *, after_ms: int | None = None, until_ms: int | None = None
) -> Feed:
    """The feed of the windows whose target's time lies in (`after_ms`, `until_ms`], in ms UTC.

    How many there are is known without a pass: of the blocks that lie in the part as a whole from
    their counts, of those at its ends by framing them.
    """
    frame = blocks.frame
    first = None if after_ms is None else after_ms // frame.step_ms + 1
    last = None if until_ms is None else until_ms // frame.step_ms
    begin = blocks.blocks * frame.size + frame.horizon
    end = begin + frame.size - 1
    counts = blocks.counts.copy()
    lowest = np.iinfo(np.int64).min if first is None else first
    highest = np.iinfo(np.int64).max if last is None else last
    counts[(end < lowest) | (begin > highest)] = 0
    cut = (counts > 0) & ((begin < lowest) | (end > highest))
    for place in np.flatnonzero(cut):
        columns = blocks.read(int(blocks.blocks[place]))
        counts[place] = framing.whole(frame, columns, first=first, last=last).sum()
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Feed(blocks, scaler, first, last, offsets[:-1], int(offsets[-1]))


def _reader_seed(seed: int, number: int) -> int:
    """What petastorm's reader is given for a pass: zero would mean any order to it."""
    return 1 + int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def _check_files(urls: list[str], folder: Path) -> None:
    """petastorm waits half a minute for a file that is not there."""
    gone = [url for url in urls if not Path(url.removeprefix("file://")).exists()]
    if gone:
        raise ModelError(
            f"{len(gone)} of {len(urls)} files of the windows' blocks under {folder} are gone: run "
            "the command again, and leave the cache alone while it runs"
        )


def _unreadable(folder: Path, error: BaseException) -> ModelError:
    """The line of TensorFlow's text that names the cause."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = next((line for line in reversed(lines) if "Error: " in line), lines[0])
    return ModelError(
        f"the windows' blocks under {folder} cannot be read ({reason.split('Error: ')[-1].strip()})"
        ": run the command again"
    )
