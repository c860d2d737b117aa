"""Instance noise: Gaussian noise on all images that D sees.

Sønderby, Caballero, Theis, Shi, Huszár, "Amortised MAP Inference for Image Super-resolution" (ICLR 2017,
arXiv:1610.04490, appendix). It gives the distributions of real and generated images a common support. Its width falls
linearly to 0.

    x' = x + sigma eps,   eps ~ N(0, 1) for each pixel and channel"""

from __future__ import annotations

import torch


def width(sigma: float, nimg: int, kimg: float | None) -> float:
    """Return sigma max(0, 1 - nimg / (1000 kimg)), the width after nimg images; kimg None: sigma."""
    return sigma if kimg is None else sigma * max(0.0, 1 - nimg / (1000 * kimg))


def add(images: torch.Tensor, noise: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return x' from images in [-1, 1] and noise eps, both [N, C, H, W]."""
    return images + sigma * noise
