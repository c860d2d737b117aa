"""Batch statistics adaptation: scales and shifts of a frozen generator, and latents, fitted to a few images.

Noguchi, Harada: Image Generation From Small Datasets via Batch Statistics Adaptation (ICCV 2019, arXiv:1904.01774).
The losses are theirs. docs/methods/scale_shift.md describes the replacement for batch statistics in a StyleGAN."""

from __future__ import annotations

from collections.abc import Iterable

import torch

VGG16 = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22)
"""Layers of VGG16's `features` whose outputs are compared: conv1_1 to conv4_3, after their ReLU."""


class Latents(torch.nn.Module):
    """One latent z_i for each image of a data set of M images, [M, z_dim], N(0, 1), or all 0."""

    def __init__(self, count: int, z_dim: int, zero: bool = False) -> None:
        super().__init__()
        self.z = torch.nn.Parameter(torch.zeros([count, z_dim]) if zero else torch.randn([count, z_dim]))


def is_scale_or_shift(name: str) -> bool:
    """Return whether a parameter, such as `G.synthesis.b4.conv1.affine.bias`, is a scale or a shift of a channel. These
    are the biases of the synthesis network, except in StyleGAN3's input layer, whose affine layer places the image."""
    return name.startswith("G.synthesis.") and name.endswith(".bias") and not name.startswith("G.synthesis.input.")


def distance(a: torch.Tensor, b: torch.Tensor, kind: str = "l1") -> torch.Tensor:
    """Return the mean |a - b| ('l1') or (a - b)^2 ('l2') of each image, [N]."""
    return ((a - b).abs() if kind == "l1" else (a - b).square()).flatten(1).mean(dim=1)


def relative(values: torch.Tensor) -> torch.Tensor:
    """Return losses [N] divided by their mean, through which no gradient passes. The mean of the result is 1 at any
    scale, and its gradient is the gradient of the logarithm."""
    return values / values.detach().mean().clamp(min=1e-12)


def earth_mover(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return L_EMD = mean_t min_i |z_i - t|^2 + mean_i min_t |z_i - t|^2, [].

    z: [N, d]; t: [T, d], draws of N(0, I); the authors' T is 10 N"""
    squared = z.square().sum(dim=1, keepdim=True) - 2 * z @ t.T + t.square().sum(dim=1)
    return squared.amin(dim=0).mean() + squared.amin(dim=1).mean()


def deviation(values: Iterable[torch.Tensor], references: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return L_re, []: the mean squared change of each vector of scales or shifts, summed over vectors."""
    pairs = zip(values, references, strict=True)
    return torch.stack([(value - reference).square().mean() for value, reference in pairs]).sum()


def vgg_levels(features: Iterable[torch.nn.Module], images: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of the layers in VGG16, without running the layers after the last one. features: all layers of
    the network, in order."""
    levels = []
    for index, layer in zip(range(VGG16[-1] + 1), features, strict=False):
        images = layer(images)
        if index in VGG16:
            levels.append(images)
    return levels


def decayed(lr: float, factor: float, nimg: int, batch: int, every: float) -> float:
    """Return the learning rate of the iteration after `nimg` images. It is multiplied by `factor` at every `every`-th
    image, including the images of this iteration."""
    return lr * factor ** int((nimg + batch) // every) if every else lr
