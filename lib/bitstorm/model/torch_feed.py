"""The feed's windows in tensors of PyTorch's, from the same blocks, through petastorm's loader."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.errors import ModelError
from bitstorm.model.windows import Feed
from bitstorm.quiet import third_party_warnings_hushed

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]

# values (points, features) float32, starts (n,) and targets (n,) float32, as of `Feed.groups`.
Group = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class TorchFeed:
    """The windows of a feed for a learner of PyTorch's: the same ones in the same order, shuffled
    or not."""

    feed: Feed

    def __len__(self) -> int:
        return len(self.feed)

    @contextmanager
    def epoch(
        self, *, batch_size: int, seed: int | None = None, number: int = 0
    ) -> Iterator[Iterator[Batch]]:
        """As `Feed.epoch`, in tensors of PyTorch's."""
        groups = self._groups(batch_size=batch_size, seed=seed, number=number)
        with closing(groups):
            yield batches(groups, look_back=self.feed.look_back, batch_size=batch_size)

    def _groups(
        self, *, batch_size: int, seed: int | None, number: int
    ) -> Generator[Group, None, None]:
        """As `Feed.groups`, through a reader that is closed with it."""
        if self.feed.served(batch_size=batch_size) == 0:
            return
        with third_party_warnings_hushed():
            from petastorm.pytorch import BatchedDataLoader

        served = 0
        converter, settings = self.feed.reading(seed=seed, number=number, batch_size=batch_size)
        # Its other loader takes rows apart one by one.
        with converter.make_torch_dataloader(
            data_loader_fn=BatchedDataLoader, **settings
        ) as loader:
            for place, columns in enumerate(self._columns(loader)):
                group = self.feed.framed(columns, number=number, batch_size=batch_size)
                group = self.feed.ordered(group, seed=seed, number=number, place=place)
                served += len(group)
                if len(group):
                    yield group.values, group.starts, group.target
        self.feed.check(served, batch_size=batch_size)

    def _columns(
        self, loader: Iterable[dict[str, torch.Tensor]]
    ) -> Iterator[dict[str, np.ndarray]]:
        try:
            for rows in loader:
                yield {name: column.numpy() for name, column in rows.items()}
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # the latter are pyarrow's, petastorm's
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"the windows' blocks under {self.feed.stored.folder} cannot be read ({reason}): "
                "run the command again"
            ) from error


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
