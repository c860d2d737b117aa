"""DigGAN: D's gradients at real and at generated images should have the same norm.

Fang, Sun, Schwing, "DigGAN: Discriminator gradIent Gap Regularization for GAN Training with Limited Data" (NeurIPS
2022, arXiv:2211.14694), for images x_n, z_n paired by their place in the batch:

    L_D += lambda E_n (||grad D(x'_n)||_2 - ||grad D(g'_n)||_2)^2,    x' = T(x),  g' = T(G(z))

T includes all augmentations; grad D is the gradient of D's logit by D's input. The authors' code takes the mean of each
norm and a stored norm without gradient: the one at the same place in the previous batch, which belongs to another
image. `memory` is the share of the stored norm, 0 in the paper and 1/2 in their code."""

from __future__ import annotations

import torch


def gradient_norms(gradients: torch.Tensor) -> torch.Tensor:
    """Return ||grad D||_2 of each image, [N], of gradients [N, C, H, W]; at 0 its derivative is 0."""
    return gradients.flatten(1).norm(dim=1)


def remembered(norms: torch.Tensor, before: torch.Tensor | None, memory: float) -> torch.Tensor:
    """Return (1 - memory) norms + memory before, [N], or the norms if `before` is None or has another size.

    before: previous norms [N] without gradient, or None"""
    if not memory or before is None or before.shape != norms.shape:
        return norms
    return norms * (1 - memory) + before * memory


def gradient_gap(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """Return (||grad D(x'_n)|| - ||grad D(g'_n)||)^2 of norms [N], [N]."""
    return (real - generated).square()
