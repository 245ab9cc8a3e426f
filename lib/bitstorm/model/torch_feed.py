"""The feed's windows in tensors of PyTorch's, from the same blocks, through petastorm's loader."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitstorm.errors import ModelError
from bitstorm.model import framing
from bitstorm.model.framing import Framed
from bitstorm.model.windows import Feed
from bitstorm.quiet import third_party_warnings_hushed

if TYPE_CHECKING:
    import numpy as np
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]


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
        import torch

        groups = self._framed(batch_size=batch_size, seed=seed, number=number)
        with closing(groups):
            # Tensors of the same memory.
            yield (
                (torch.from_numpy(batch.window), torch.from_numpy(batch.target))
                for batch in framing.batches(
                    groups, look_back=self.feed.look_back, batch_size=batch_size
                )
            )

    def _framed(
        self, *, batch_size: int, seed: int | None, number: int
    ) -> Generator[Framed, None, None]:
        """One pass through a reader of its own, which is closed with it."""
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
                    yield group
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
