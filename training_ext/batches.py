"""Several batches as one pass of D, without mixing their minibatch-stddev groups.

D couples the images of a batch in one place only: the minibatch standard deviation layer. It views a batch of N as
[G, N/G, ...] with G = min(group_size, N) and takes statistics over the first axis, so group m holds the images m,
m + N/G, m + 2 N/G, ... Batches that share a pass should be grouped as in separate passes. So each is viewed as
[G, n_i/G, ...], and they are concatenated along the second axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def can_join(sizes: Sequence[int], size: int) -> bool:
    """Return whether batches of these sizes can share one pass of a D with groups of `size` images.

    False if a group would be larger than in a separate pass (n < size), or if the layer cannot split a batch."""
    return all(n >= size and n % size == 0 for n in sizes)


def join(batches: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Join batches [n_i, ...] for which `can_join` is true to one batch [sum of n_i, ...], so that groups stay within
    each.

    size: of the layer's groups; 1 without such a layer. Labels are joined in the same way."""
    return torch.cat([batch.unflatten(0, (size, len(batch) // size)) for batch in batches], dim=1).flatten(0, 1)


def split(outputs: torch.Tensor, sizes: Sequence[int], size: int) -> list[torch.Tensor]:
    """Undo `join`: outputs [sum of sizes, ...] -> a list of [n_i, ...]."""
    blocks = outputs.unflatten(0, (size, len(outputs) // size))
    return [block.flatten(0, 1) for block in blocks.split([n // size for n in sizes], dim=1)]
