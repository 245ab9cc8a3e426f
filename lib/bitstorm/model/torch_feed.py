"""The feed's windows in tensors of PyTorch's, from the same blocks, through petastorm's loader.

Blocks are framed as a whole: a window is a place in a block until its batch is put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Windows that are shuffled among one another, at least; whole blocks are taken until there are as
# many. Between these pools only the order of the blocks is another from epoch to epoch.
POOL = 100_000


@dataclass(frozen=True)
class Framed:
    """Some blocks. `series` is float32 (blocks, points, features), scaled, in it `look_back`
    points before the first point that may end a window; `target` float32 (blocks, size) and `whole`
    bool (blocks, size) belong to the window that ends at each of these, and say whether there is
    one."""

    series: torch.Tensor
    target: torch.Tensor
    whole: torch.Tensor


def batches(
    blocks: Iterable[Framed],
    *,
    look_back: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    pool: int = POOL,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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
        # The window of the place k ends at point look_back + k.
        first = block * points + end + 1
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
