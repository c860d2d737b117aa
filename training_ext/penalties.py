"""Penalties on gradients of D's logits by images. Each takes gradients [N, C, H, W] and returns [N], not reduced."""

from __future__ import annotations

import torch


def zero_centred(gradient: torch.Tensor) -> torch.Tensor:
    """Return ||g||_2^2. R1 on real and R2 on generated images are gamma/2 times this (Mescheder, Geiger, Nowozin 2018,
    arXiv:1801.04406, equations (9) and (10))."""
    return gradient.square().sum([1, 2, 3])


def one_centred(gradient: torch.Tensor) -> torch.Tensor:
    """Return (||g||_2 - 1)^2 (Gulrajani et al. 2017, arXiv:1704.00028, equation (3)). At g = 0 its gradient is 0."""
    return (gradient.flatten(1).norm(dim=1) - 1).square()
