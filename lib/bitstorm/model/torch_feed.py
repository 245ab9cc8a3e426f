"""The feed's windows in tensors of PyTorch's, from the same blocks, through petastorm's loader.

Blocks are framed as a whole: a window is a place in a block until its batch is put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.errors import ModelError
from bitstorm.model.windows import Feed
from bitstorm.quiet import third_party_warnings_hushed

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]

# Windows that are shuffled among one another, at least; whole blocks are taken until there are as
# many. Between these pools only the order of the blocks is another from epoch to epoch.
POOL = 100_000
# Rows of the data set that are framed at once.
_ROWS = 1024


@dataclass(frozen=True)
class Framed:
    """Some blocks. `series` is float32 (blocks, points, features), scaled, with `look_back` − 1
    points before the first point that may end a window; `target` float32 (blocks, size) and `whole`
    bool (blocks, size) belong to the window that ends at each of these, and say whether there is
    one."""

    series: torch.Tensor
    target: torch.Tensor
    whole: torch.Tensor


@dataclass(frozen=True)
class TorchFeed:
    """The windows of a feed for a learner of PyTorch's: the same ones, and without a seed in the
    same order."""

    feed: Feed

    def __len__(self) -> int:
        return len(self.feed)

    @contextmanager
    def epoch(
        self, *, batch_size: int, seed: int | None = None, number: int = 0
    ) -> Iterator[Iterator[Batch]]:
        """One pass by a reader of its own, closed at exit: window float32 (n, look_back, features)
        and target float32 (n,); n is `batch_size` but for the last batch.

        With a seed shuffled by (seed, number), the same on every run: the order of the row groups,
        then pools of POOL windows. Raises ModelError when the pass ends with other than the feed's
        number of windows.
        """
        import torch

        with third_party_warnings_hushed():
            from petastorm.pytorch import BatchedDataLoader

        # Of its own: the process' generator may be another thread's at this moment.
        generator = None if seed is None else torch.Generator().manual_seed(_mixed(seed, number))
        with self.feed.converter.make_torch_dataloader(
            batch_size=_ROWS,
            num_epochs=1,
            workers_count=1,
            # petastorm's thread pool can take "not begun" for "done" and lose a pass.
            reader_pool_type="dummy",
            shuffle_row_groups=seed is not None,
            seed=None if seed is None else _mixed(seed, number),
            data_loader_fn=BatchedDataLoader,
        ) as rows:
            framed = (self._framed(columns) for columns in rows)
            yield self._counted(
                batches(
                    framed,
                    look_back=self.feed.look_back,
                    batch_size=batch_size,
                    generator=generator,
                )
            )

    def _framed(self, columns: Mapping[str, torch.Tensor]) -> Framed:
        shape = (-1, self.feed.look_back, self.feed.features)
        target = columns["target"][:, None]
        return Framed(columns["window"].reshape(shape), target, target == target)

    def _counted(self, served: Iterator[Batch]) -> Iterator[Batch]:
        windows = 0
        for window, target in served:
            windows += len(target)
            yield window, target
        if windows != len(self):
            raise ModelError(
                f"a pass over the windows served {windows}, expected {len(self)}: their files "
                f"under {self.feed.converter.cache_dir_url} have changed meanwhile"
            )


def _mixed(seed: int, number: int) -> int:
    """32 bits for a generator from the two; neighbours come out unlike."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def batches(
    blocks: Iterable[Framed],
    *,
    look_back: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    pool: int = POOL,
) -> Iterator[Batch]:
    """Every whole window once: float32 (n, look_back, features) and its target (n,).

    n is `batch_size` but for the last batch. In the order of the blocks, or shuffled in pools of at
    least `pool` windows as the generator has it.
    """
    import torch

    window, target = None, None
    for framed in _pooled(blocks, pool if generator is not None else 1):
        block, end = framed.whole.nonzero(as_tuple=True)
        if generator is not None:
            order = torch.randperm(len(end), generator=generator)
            block, end = block[order], end[order]
        points = framed.series.shape[1]
        flat = framed.series.flatten(0, 1)
        # A window of place k begins at point k.
        first = block * points + end
        steps = torch.arange(look_back)
        targets = framed.target[block, end]
        begin = 0
        while begin < len(end):
            room = batch_size - (0 if target is None else len(target))
            some = slice(begin, begin + room)
            begin += room
            taken = flat[first[some, None] + steps], targets[some]
            if window is not None and target is not None:
                taken = torch.cat([window, taken[0]]), torch.cat([target, taken[1]])
            window, target = taken
            if len(target) == batch_size:
                yield window, target
                window, target = None, None
    if window is not None and target is not None:
        yield window, target


def _pooled(blocks: Iterable[Framed], pool: int) -> Iterator[Framed]:
    """Neighbours together until they hold as many windows."""

    kept: list[Framed] = []
    windows = 0
    for framed in blocks:
        kept.append(framed)
        windows += int(framed.whole.sum())
        if windows >= pool:
            yield _joined(kept)
            kept, windows = [], 0
    if kept:
        yield _joined(kept)


def _joined(framed: list[Framed]) -> Framed:
    import torch

    if len(framed) == 1:
        return framed[0]
    return Framed(
        torch.cat([each.series for each in framed]),
        torch.cat([each.target for each in framed]),
        torch.cat([each.whole for each in framed]),
    )
