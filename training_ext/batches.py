"""Several batches as one pass of D, without mixing their minibatch-stddev groups.

D couples the images of a batch in one place only: the minibatch standard deviation layer. It views a batch of N as
[G, N/G, ...] with G = min(group_size, N) and takes statistics over the first axis, so group m holds the images m,
m + N/G, m + 2 N/G, ... Batches that share a pass should be grouped as in passes of their own: viewed as [G, n_i/G, ...]
each, they are put side by side along the second axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def can_join(sizes: Sequence[int], group_size: int | None) -> bool:
    """Whether batches of these sizes can share one pass of D whose layer has this group_size (None: the whole batch).

    No, if a group would be larger than in a pass of its own (n < group_size, or None), or if the layer cannot split a
    batch at all (n not a multiple of group_size). Then run one pass each.
    """
    return group_size is not None and group_size >= 1 and all(n >= group_size and n % group_size == 0 for n in sizes)


def join(batches: Sequence[torch.Tensor], group_size: int | None) -> torch.Tensor:
    """One batch [sum of n_i, ...] of several [n_i, ...], ordered so that the layer groups within each (see above).

    group_size: that of D's minibatch standard deviation layer; 1 if D has none. Raises ValueError where can_join says
    no. Labels are joined in the same way.
    """
    if len({batch.shape[1:] for batch in batches}) > 1:
        raise ValueError(f"batches: items must have one shape, got {[list(batch.shape) for batch in batches]}.")
    sizes = [len(batch) for batch in batches]
    size = _check(sizes, group_size)
    blocks = [batch.unflatten(0, (size, n // size)) for batch, n in zip(batches, sizes, strict=True)]
    return torch.cat(blocks, dim=1).flatten(0, 1)


def split(outputs: torch.Tensor, sizes: Sequence[int], group_size: int | None) -> list[torch.Tensor]:
    """Undoes join: outputs [sum of sizes, ...] -> a list of [n_i, ...]."""
    if len(outputs) != sum(sizes):
        raise ValueError(f"outputs: must hold {sum(sizes)} items, {sizes}, got {len(outputs)}.")
    size = _check(sizes, group_size)
    blocks = outputs.unflatten(0, (size, len(outputs) // size))
    return [block.flatten(0, 1) for block in blocks.split([n // size for n in sizes], dim=1)]


def _check(sizes: Sequence[int], group_size: int | None) -> int:
    if not can_join(sizes, group_size):
        raise ValueError(
            f"group_size: batches of {sizes} cannot share one pass of D with group_size {group_size}. "
            "Each must be a positive multiple of it; use one pass each."
        )
    assert group_size is not None
    return group_size
