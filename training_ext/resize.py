"""Resizing of images with reproducible gradients."""

from __future__ import annotations

import functools

import torch


def area(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize images [N, C, H, W] to [N, C, size, size]: row i is the mean over rows from floor(i H / size) to
    ceil((i + 1) H / size) - 1, and likewise for columns. This is torch's `area` mode, as two matrix products, whose
    gradient on a GPU is reproducible. The gradient of torch's function is not."""
    rows, columns = (_means(side, size, images.dtype, images.device) for side in images.shape[2:])
    return rows @ images @ columns.T


@functools.cache
def _means(side: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return the weights of `area` along one axis, [size, side]."""
    index, out = torch.arange(side, device=device), torch.arange(size, device=device)[:, None]
    inside = (index >= out * side // size) & (index < -((out + 1) * side // -size))
    return inside.to(dtype) / inside.sum(dim=1, keepdim=True)
