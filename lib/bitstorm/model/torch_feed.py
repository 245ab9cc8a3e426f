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

# values (points, features) float32, starts (n,) and targets (n,) float32: window i is
# values[starts[i] : starts[i] + look_back].
Group = tuple[np.ndarray, np.ndarray, np.ndarray]
# Rows of the data set that are framed, and shuffled, at once.
_ROWS = 65_536


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
        then _ROWS rows among one another. Raises ModelError when the pass ends with other than the
        feed's number of windows.
        """
        with third_party_warnings_hushed():
            from petastorm.pytorch import BatchedDataLoader

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
            groups = self._groups(rows, seed=seed, number=number)
            yield self._counted(
                batches(groups, look_back=self.feed.look_back, batch_size=batch_size)
            )

    def _groups(
        self, rows: Iterable[Mapping[str, torch.Tensor]], *, seed: int | None, number: int
    ) -> Iterator[Group]:
        look_back, features = self.feed.look_back, self.feed.features
        for place, columns in enumerate(rows):
            target = columns["target"].numpy()
            order = np.arange(len(target))
            if seed is not None:
                order = np.random.default_rng([seed, number, place]).permutation(order)
            yield columns["window"].numpy().reshape(-1, features), order * look_back, target[order]

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


def batches(groups: Iterable[Group], *, look_back: int, batch_size: int) -> Iterator[Batch]:
    """Every window once, in the groups' order: float32 (n, look_back, features) and its target
    (n,); n is `batch_size` but for the last batch."""
    import torch

    window, target = None, None
    for group in groups:
        values, starts, targets = (torch.from_numpy(column).contiguous() for column in group)
        points, features = values.shape
        # A window's numbers lie in a row: all windows are a view of the values, line by line.
        lines = values.as_strided(
            (max(0, points - look_back + 1), look_back * features), (features, 1)
        )
        begin = 0
        while begin < len(starts):
            room = batch_size - (0 if target is None else len(target))
            some = slice(begin, begin + room)
            begin += room
            # Copies, so that no batch keeps its group alive.
            windows = lines.index_select(0, starts[some]).view(-1, look_back, features)
            more = windows, targets[some].clone()
            if window is not None and target is not None:
                more = torch.cat([window, more[0]]), torch.cat([target, more[1]])
            window, target = more
            if len(target) == batch_size:
                yield window, target
                window, target = None, None
    if window is not None and target is not None:
        yield window, target
