"""Mode seeking: images of different latents shall differ.

Mao, Lee, Tseng, Ma, Yang, "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis" (CVPR 2019,
arXiv:1903.05628). Symbols: two latents z1, z2 [N, z_dim] with the same label, and their images I1, I2 [N, C, H, W]:

    L_ms = 1 / (d_I / d_z + 1e-5),   d_I = E mean |I2 - I1|,   d_z = E mean |z2 - z1|

This is the authors' code, which maximises the paper's ratio d_I / d_z by minimising its inverse."""

from __future__ import annotations

import torch

EPSILON = 1e-5


def distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of each pair, [N]; first, second: [N, ...]."""
    return (second - first).abs().flatten(1).mean(dim=1)


def mode_seeking_loss(of_images: torch.Tensor, of_latents: torch.Tensor) -> torch.Tensor:
    """Return L_ms, [], from the distances of N pairs, of images and of latents, [N] each."""
    return 1 / (of_images.mean() / of_latents.mean() + EPSILON)
