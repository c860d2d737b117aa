"""SSGAN: D tells by which angle an image was rotated, and G makes images on which it can.

Chen, Zhai, Ritter, Lucic, Houlsby, "Self-Supervised GANs via Auxiliary Rotation Loss" (CVPR 2019, arXiv:1811.11212).
x^r is x rotated by r in {0, 90, 180, 270} degrees, Q_D a linear layer and a softmax on D's last hidden layer:

    L_D += d_weight E_(x, r) -log Q_D(r | x^r),    L_G += g_weight E_(z, r) -log Q_D(r | G(z)^r)

D learns the angles of real images alone. The GAN loss is on upright images."""

from __future__ import annotations

import torch

ANGLES = 4


def rotated_count(share: float, n: int) -> int:
    """Return how many of n images are rotated: their share, at least one."""
    return max(round(share * n), 1)


def rotations(images: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last n of images [N, C, H, W] at all angles, [4 n, C, H, W], and their quarter turns, [4 n].

    The four angles of an image are n places apart, so that they form a minibatch-stddev group of 4. The standard
    deviation is then the same for all angles, and does not reveal the angle."""
    rotated = torch.cat([images[-n:].rot90(quarters, dims=(2, 3)) for quarters in range(ANGLES)])
    return rotated, torch.arange(ANGLES, device=images.device).repeat_interleave(n)


def rotation_loss(logits: torch.Tensor, quarters: torch.Tensor) -> torch.Tensor:
    """Return -log Q_D(r | x^r), [M], from the logits of Q_D [M, 4] and r in quarter turns [M]."""
    return torch.nn.functional.cross_entropy(logits, quarters, reduction="none")
