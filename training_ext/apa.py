"""APA: with a probability that adapts, D is shown a generated image in the place of a real one.

Jiang, Dai, Wu, Loy, "Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data" (NeurIPS 2021,
arXiv:2111.06849). Symbols: x real images, G(z') generated ones without gradient, both [N, C, H, W]; p in [0, 1]. p is
ADA's controller with the same rule (training_ext.ada)."""

from __future__ import annotations

import torch


def deceive(images: torch.Tensor, pseudo: torch.Tensor, u: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return x' = m G(z') + (1 - m) x,  m = 1 where u < p, else 0;  [N, C, H, W].

    images: x; pseudo: G(z'), of the same shape; u: uniform in [0, 1), [N, 1, 1, 1]; p: []."""
    return torch.where(u < p, pseudo, images)
