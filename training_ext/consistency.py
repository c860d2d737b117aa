"""Mathematics of CR, bCR and zCR: D gives similar logits to images that differ only in irrelevant details.

CR: Zhang, Zhang, Odena, Lee, "Consistency Regularization for Generative Adversarial Networks" (ICLR 2020,
arXiv:1910.12027). bCR and zCR: Zhao, Singh, Lee, Zhang, Odena, Zhang, "Improved Consistency Regularization for GANs"
(AAAI 2021, arXiv:2002.04724). Symbols: images x, G(z) [N, C, H, W]; logits [N, K], K = 1 of the host's D; latents z
[N, z_dim].

    CR    L_D += weight E (D(x) - D(T(x)))^2
    bCR   L_D += real_weight E (D(x) - D(T(x)))^2 + generated_weight E (D(G(z)) - D(T(G(z))))^2
    zCR   L_D += d_weight E (D(G(z)) - D(G(z + delta)))^2,   L_G -= g_weight E mean (G(z) - G(z + delta))^2

    T(x)[i, j] = x[i + dy, +-(j + dx)],   dy, dx uniform in -s..s pixels, the border reflected
    delta ~ N(0, sigma^2)

Gradients reach D through both logits, and G through both images. Terms are [N]."""

from __future__ import annotations

import torch


def difference(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return (D(x) - D(x'))^2, the mean over K, [N]. logits, others: [N, K]."""
    return (logits - others).square().flatten(1).mean(dim=1)


def closeness(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return -mean (G(z) - G(z'))^2 over channels and pixels, [N], not bounded below. images, others: [N, C, H, W]."""
    return -(images - others).square().mean(dim=[1, 2, 3])


def largest_shift(shift: float, side: int) -> int:
    """Return s in pixels for `shift` in image sides."""
    return round(shift * side)


def draw(images: torch.Tensor, shift: float, flip: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which images T mirrors, bool [N], and dy and dx in pixels, int [N, 2].

    shift: s in image sides; flip: whether T mirrors half of the images, or none"""
    count, device, largest = len(images), images.device, largest_shift(shift, images.shape[-1])
    mirrored = torch.rand([count], device=device) < 0.5 if flip else torch.zeros([count], device=device).bool()
    return mirrored, torch.randint(-largest, largest + 1, [count, 2], device=device)


def move(images: torch.Tensor, mirrored: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Apply T to images [N, C, H, W]: mirror the images selected by `mirrored` [N], and shift all by `offset` [N, 2] in
    pixels."""
    n, channels, height, width = images.shape
    rows, columns = (_reflected(side, shift) for side, shift in zip((height, width), offset.unbind(dim=1), strict=True))
    columns = torch.where(mirrored.unsqueeze(1), width - 1 - columns, columns)
    moved = images.gather(2, rows[:, None, :, None].expand(n, channels, -1, width))
    return moved.gather(3, columns[:, None, None, :].expand_as(moved))


def _reflected(side: int, shift: torch.Tensor) -> torch.Tensor:
    """Return the places i + shift, [N, side], reflected at 0 and at side - 1."""
    places = torch.arange(side, device=shift.device) + shift.unsqueeze(1)
    return side - 1 - (side - 1 - places.abs()).abs()


def moved(images: torch.Tensor, shift: float, flip: bool) -> torch.Tensor:
    """Draw T and apply it to images [N, C, H, W]; shift, flip as in `draw`."""
    return move(images, *draw(images, shift, flip))
